"""The report: from folders alone, with what is damaged named, and the same content in every format."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm_lightning.evaluation.published import PUBLISHED, baseline_of, setting_of
from cm_lightning.evaluation.report import choose_baselines, load_rows, write_report
from cm_lightning.evaluation.tables import Cell, ReportTable, overview_table
from cm_lightning.main import main
from tests.conftest import CONFIGS
from tests.evaluation.test_pooling import write_fold

LABEL = np.zeros((8, 8), np.uint8)
LABEL[1:7, 1:7] = 1
PLAN = [["a1", "b1"], ["c1", "d1"], ["e1", "f1"]]


def write_experiment(folder, missing_rows, monkeypatch):
    """Six participants in three folds; the prediction lacks some rows of the label."""
    monkeypatch.setattr("tests.evaluation.test_pooling.LABEL", LABEL)
    for fold, cases in enumerate(PLAN):
        predictions = {}
        for case in cases:
            prediction = LABEL.copy()
            prediction[1 : 1 + missing_rows + ord(case[0]) % 2] = 0
            predictions[case] = prediction
        write_fold(folder, fold, predictions, plan=PLAN)
    (folder / "fold0" / "config.yaml").write_text("model: <U-Net & map>\n")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    write_experiment(tmp_path / "runs" / "muscle_unet_1ch_dicece", 2, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_2ch_dice", 1, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_2ch_ce", 1, monkeypatch)
    (tmp_path / "runs" / "muscle_unet_2ch_ce" / "fold1" / "test_metrics.csv").write_text("not, a table\n1, 2\n")
    return tmp_path / "runs"


def test_report_names_the_damaged_run_and_goes_on(runs, tmp_path, capsys):
    main(["report", str(runs), "--output", str(tmp_path / "out")])
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"muscle_unet_2ch_ce</td><td>[^<]*fold1/test_metrics.csv", page)
    assert "2 models over 6 patients" in page
    assert "0.85 ± 0.01" in page  # published, beside ours
    assert "&lt;U-Net &amp; map&gt;" in page
    # Self-contained: nothing is loaded from elsewhere.
    assert not re.search(r'(src|href)="(?!data:)', page)
    folder = tmp_path / "out"
    assert {path.stem for path in (folder / "tables").iterdir()} == {
        *("left_out", "overview", "published", "classes"),
        *("comparison_dice", "comparison_hd", "comparison_asd", "comparison_islands"),
    }
    assert {path.suffix for path in (folder / "tables").iterdir()} == {".md", ".tex", ".csv"}
    assert np.asarray(Image.open(folder / "figures" / "dice.png").convert("L")).std() > 10
    # Made again from the same rows, it is the same.
    write_report([runs], tmp_path / "again")
    assert (tmp_path / "again" / "report.md").read_text() == (folder / "report.md").read_text()


def test_best_is_bold_and_the_studys_mark_is_on_the_hausdorff_distance(runs):
    rows, problems = load_rows([runs])
    assert len(problems) == 1
    baselines = choose_baselines(list(dict.fromkeys(rows["model"])), None)
    assert baselines == {"muscle_unet_2ch_dice": "muscle_unet_1ch_dicece"}
    table = overview_table(rows, baselines)
    one, two = table.rows
    dice = table.columns.index("DSC")
    assert (one[dice].best, two[dice].best) == (False, True)
    # All six are better by one row: p = 2 / 2^6 = 0.031.
    assert (one[0].text, two[0].text) == ("muscle_unet_1ch_dicece", "muscle_unet_2ch_dice *")


def test_one_content_in_four_formats():
    table = ReportTable("t", "Title", "Note.", ["model", "100 %"], [[Cell("a_b"), Cell("0.5 ± 0.1", best=True)]])
    assert "| a_b | **0.5 ± 0.1** |" in table.to_markdown()
    assert "<td>a_b</td><td><b>0.5 ± 0.1</b></td>" in table.to_html()
    assert r"a\_b & \textbf{0.5 $\pm$ 0.1} \\" in table.to_latex()
    assert r"model & 100 \%" in table.to_latex()
    assert table.to_csv() == "model,100 %\na_b,0.5 ± 0.1\n"


def test_published_settings_have_configurations():
    for setting in PUBLISHED:
        assert (CONFIGS / f"muscle_{setting}.yaml").is_file()
    assert setting_of("muscle_unet_2ch_dice") == "unet_2ch_dice"
    assert baseline_of("thyroid_unetr_2ch_dice") == "thyroid_unetr_1ch_ce"
    assert baseline_of("muscle_unet_1ch_dicece") is None
    assert baseline_of("demo") is None


def test_refusals(runs, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"None of the runs can be reported:\n.*nothing: There is no fold"):
        load_rows([tmp_path / "nothing"])
    with pytest.raises(ValueError, match="baseline demo is not among the runs"):
        write_report([runs], tmp_path / "out", "demo")
    other = runs / "other"
    write_experiment(other, 1, monkeypatch)
    for path in other.glob("fold*/test_metrics.csv"):
        pd.read_csv(path).assign(unit="px").to_csv(path, index=False)
    with pytest.raises(ValueError, match="do not share one unit"):
        load_rows([runs])
