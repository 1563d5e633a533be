"""Reports: content of pages and tables, damaged runs, and equal content in all formats."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cm_lightning.drawing import reliability_plot
from cm_lightning.evaluation import comparison as comparison_module
from cm_lightning.evaluation import results as results_module
from cm_lightning.evaluation.comparison_table import comparison_table
from cm_lightning.evaluation.loading import load_runs
from cm_lightning.evaluation.published import PUBLISHED, baseline_of, setting_of
from cm_lightning.evaluation.report import choose_comparisons, write_report
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.evaluation.results import Results
from cm_lightning.evaluation.study_tables import claims_table
from cm_lightning.evaluation.tables import (
    calibration_table,
    class_table,
    overview_table,
    settings_table,
)
from cm_lightning.main import main
from cm_lightning.metrics.calibration import calibration_errors, calibration_rows, reliability
from cm_lightning.metrics.levels import depth_levels, level_rows
from tests.conftest import CONFIGS, blank_figures
from tests.evaluation.test_pooling import write_fold

LABEL = np.zeros((8, 8), np.uint8)
LABEL[1:7, 1:7] = 1
PLAN = [["a1", "b1"], ["c1", "d1"], ["e1", "f1"]]


def write_experiment(folder, missing_rows, monkeypatch):
    """Write results of six participants in three folds; predictions lack the first rows of the label."""
    monkeypatch.setattr("tests.evaluation.test_pooling.LABEL", LABEL)
    for fold, cases in enumerate(PLAN):
        predictions = {}
        for case in cases:
            prediction = LABEL.copy()
            prediction[1 : 1 + missing_rows + ord(case[0]) % 2] = 0
            predictions[case] = prediction
        write_fold(folder, fold, predictions, plan=PLAN)
        fold_folder = folder / f"fold{fold}"
        levels = {"depth": depth_levels(torch.ones(8, 8, dtype=torch.bool))}
        rows = []
        for case, prediction in predictions.items():
            masks = (torch.as_tensor(prediction), torch.as_tensor(LABEL))
            rows += level_rows(*masks, ["muscle"], levels, case=case, patient=case[0])
        pd.DataFrame(rows).to_csv(fold_folder / "test_levels.csv", index=False)
        curve = pd.DataFrame({"epoch": [0, 0, 1, 1, 2], "val/dice/mean": [0.5, np.nan, 0.96, np.nan, 1.0]})
        curve.to_csv(fold_folder / "metrics.csv", index=False)
    (folder / "fold0" / "config.yaml").write_text(f"model: <U-Net & map>\nrows: {missing_rows}\n")
    (folder / "fold2" / "pictures").mkdir()
    Image.new("L", (3, 3)).save(folder / "fold2" / "pictures" / "test_e1.png")


def add_calibration(experiment, probabilities):
    """Write calibration results, with the same probability at all pixels for each calibration."""
    for path in experiment.glob("fold*/test_metrics.csv"):
        rows, bins = pd.read_csv(path), []
        for case, patient in dict(rows[["case", "patient"]].to_numpy()).items():
            for calibration, probability in probabilities.items():
                ids = {"case": case, "patient": patient, "calibration": calibration}
                domain = torch.ones(8, 8, dtype=torch.bool)
                class_maps = [torch.full((8, 8), probability)]
                bins += calibration_rows(class_maps, torch.as_tensor(LABEL), ["muscle"], domain, **ids)
        bins = pd.DataFrame(bins)
        bins.to_csv(path.with_name("test_calibration.csv"), index=False)
        errors = calibration_errors(bins[bins["calibration"] == "none"], ["case"]).rename_axis(columns="metric")
        template = rows.drop(columns=["metric", "value"]).drop_duplicates("case")
        added = template.merge(errors.stack().rename("value").reset_index(), on="case")
        pd.concat([rows, added]).to_csv(path, index=False)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    write_experiment(tmp_path / "runs" / "muscle_unet_1ch_dicece", 2, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_1ch_ceconf", 3, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_2ch_dice_seed0", 1, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_2ch_dice_seed1", 1, monkeypatch)
    write_experiment(tmp_path / "runs" / "muscle_unet_2ch_ce", 1, monkeypatch)
    (tmp_path / "runs" / "muscle_unet_2ch_ce" / "fold1" / "test_metrics.csv").write_text("not, a table\n1, 2\n")
    return tmp_path / "runs"


def test_report_lists_damaged_runs_and_contains_all_others(runs, tmp_path, capsys):
    main(["report", str(runs), "--output", str(tmp_path / "out")])
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"muscle_unet_2ch_ce</td><td>[^<]*fold1/test_metrics.csv", page)
    assert "3 models, 6 patients" in page
    assert "6 cases, 2 seed(s)" in page
    assert "0.85 ± 0.01" in page  # the published result next to that of this experiment
    assert "&lt;U-Net &amp; map&gt;" in page
    # The page is self-contained and loads no other files.
    assert not re.search(r'(src|href)="(?!data:)', page)
    folder = tmp_path / "out"
    assert {path.stem for path in (folder / "tables").iterdir()} == {
        *("left_out", "overview", "published", "supplement", "claims", "classes", "error_by_depth", "settings"),
        "conventions",
        *(f"comparison_{name}" for name in ("dice", "hd", "asd", "islands", "error_deep")),
    }
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        *("dice", "hd", "asd", "error_by_level", "ranks_dice", "ranks_hd")
    }
    assert page.count('alt="one of the worst cases of muscle_unet_2ch_dice"') == 1  # the same case for both seeds
    assert {path.suffix for path in (folder / "tables").iterdir()} == {".md", ".tex", ".csv"}
    assert np.asarray(Image.open(folder / "figures" / "dice.png").convert("L")).std() > 10
    stored = pd.read_csv(folder / "values.csv")
    assert list(stored) == ["quantity", "model", "seed", "fold", "patient", "value"]
    dice = stored[stored["quantity"] == "dice"].groupby("model").size()
    assert dice.to_dict() == {
        "muscle_unet_1ch_ceconf": 6,
        "muscle_unet_1ch_dicece": 6,
        "muscle_unet_2ch_dice": 12,
    }
    assert set(stored["quantity"]) == {"dice", "hd", "asd", "islands", "error_deep"}
    # A second report of the same runs is equal, and replaces the files of an earlier report.
    (tmp_path / "second" / "tables").mkdir(parents=True)
    (tmp_path / "second" / "tables" / "earlier.md").touch()
    with blank_figures():
        write_report([runs], tmp_path / "second")
    assert (tmp_path / "second" / "report.md").read_text() == (folder / "report.md").read_text()
    assert not (tmp_path / "second" / "tables" / "earlier.md").exists()


def test_overview_marks_best_values_and_significant_differences(runs):
    loaded = load_runs([runs])
    assert len(loaded.problems) == 1
    comparisons = choose_comparisons(loaded.models)
    assert comparisons == [
        ("muscle_unet_1ch_ceconf", "muscle_unet_1ch_dicece"),
        ("muscle_unet_2ch_dice", "muscle_unet_1ch_dicece"),
    ]
    table = overview_table(Results(loaded, comparisons))
    _, single_channel, two_channel = table.rows
    dice = table.columns.index("DSC")
    assert (single_channel[dice].best, two_channel[dice].best) == (False, True)
    assert (single_channel[-1].text, two_channel[-1].text) == ("1", "2")  # seeds
    assert two_channel[dice].text.endswith("; 0.000)")  # SD over seeds
    # All six participants are better by one row: p = 2 / 2^6 = 0.031.
    assert (single_channel[0].text, two_channel[0].text) == ("muscle_unet_1ch_dicece", "muscle_unet_2ch_dice *")


def test_all_values_of_a_report_are_computed_only_once(runs, tmp_path, monkeypatch):
    """Tables and figures only present values and do not compute them."""
    calls = Counter()

    def counted(name, function):
        def count(*arguments, **options):
            # Calls are identified by their metric, policy or quantity, and not by their table.
            keys = [argument for argument in arguments if isinstance(argument, str)]
            calls[name, *keys] += 1
            return function(*arguments, **options)

        return count

    for module, name in (
        (results_module, "seed_values"),
        (results_module, "summarise"),
        (results_module, "compare_quantity"),
        (results_module, "participant_errors"),
        (results_module, "error_profile"),
        (comparison_module, "compare_models"),
        (comparison_module, "friedman"),
    ):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    with blank_figures():
        write_report([runs], tmp_path / "out")
    keyed_calls = {(name, *keys): number for (name, *keys), number in calls.items() if keys}
    assert {key[1] for key in keyed_calls if key[0] == "seed_values"} == {"dice", "hd", "asd", "islands"}
    assert {key[1] for key in keyed_calls if key[0] == "summarise"} == {"worst", "detected"}
    assert set(keyed_calls.values()) == {1}
    quantities = sum(key[0] == "compare_quantity" for key in keyed_calls)
    assert calls["compare_models",] == quantities
    assert calls["friedman",] <= quantities
    assert calls["participant_errors",] == 3


def test_claims_and_settings_tables(runs):
    loaded = load_runs([runs])
    results = Results(loaded, [])
    table = claims_table(results)
    texts = {row[0].text: [cell.text for cell in row] for row in table.rows}["muscle_unet_2ch_dice"]
    # Predictions lack the first rows of the label, but none of the deepest.
    assert texts[table.columns.index("error, deep")] == "0.000"
    assert texts[table.columns.index("error, low confidence")] == "-"  # not measured in this test
    assert texts[table.columns.index("epochs to 95 %")] == "2.0"
    settings = settings_table(results)
    assert settings.columns == ["model", "rows"]
    assert [row[1].text for row in settings.rows] == ["3", "2", "1"]


@pytest.mark.parametrize("name", ["test_levels.csv", "test_plan.json"])
def test_damaged_runs_are_listed_and_left_out_completely(runs, name):
    (runs / "muscle_unet_1ch_ceconf" / "fold1" / name).write_text("")
    (runs / "muscle_unet_2ch_dice_seed0" / "fold3").mkdir()  # a fold that was started but not tested
    loaded = load_runs([runs])
    assert f"fold1/{name} cannot be read" in dict(loaded.problems)[str(runs / "muscle_unet_1ch_ceconf")]
    assert loaded.models == ["muscle_unet_1ch_dicece", "muscle_unet_2ch_dice"]
    assert loaded.versions().sum() == 9


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", b"- 1\n", "contains list; expected the settings of a run"),
        ("config.yaml", b"data: [\n", "is not valid YAML"),
        ("config.yaml", b"\xff\xfea\x00", "is not a text in UTF-8"),
        ("test_plan.json", b"[1, 2]", "has no list of the test cases of every fold"),
        ("test_metrics.csv", None, "contains something else than numbers in the column diagonal"),
        ("test_levels.csv", None, "contains something else than numbers in the column false_negative"),
    ],
)
def test_other_contents_of_a_run_are_named_and_left_out(runs, name, content, reason):
    path = runs / "muscle_unet_1ch_ceconf" / "fold1" / name
    if content is None:
        lines = path.read_text().splitlines()
        content = "\n".join([lines[0], ",".join("abc" for _ in lines[0].split(",")), *lines[2:]]).encode()
    path.write_bytes(content)
    loaded = load_runs([runs])
    assert reason in dict(loaded.problems)[str(runs / "muscle_unet_1ch_ceconf")]
    assert loaded.models == ["muscle_unet_1ch_dicece", "muscle_unet_2ch_dice"]


@pytest.mark.parametrize(
    "content", ["", "a,b\n1\n1,2,3\n", "step,val/dice/mean\n1,0.5\n", "epoch,val/dice/mean\n1,x\n"]
)
def test_damaged_learning_curves_are_named_and_other_results_are_kept(runs, content):
    experiment = runs / "muscle_unet_1ch_ceconf"
    (experiment / "fold1" / "metrics.csv").write_text(content)
    loaded = load_runs([runs])
    assert f"{experiment}, learning curves" in dict(loaded.problems)
    assert "muscle_unet_1ch_ceconf" in loaded.models


def test_a_case_may_be_called_nan(runs):
    experiment = runs / "muscle_unet_1ch_ceconf"
    case = json.loads((experiment / "fold0" / "test_plan.json").read_text())["test_cases"][0][0]
    for path in (file for fold in experiment.glob("fold*") for file in fold.iterdir() if file.is_file()):
        path.write_text(path.read_text().replace(f'"{case}"', '"nan"').replace(f"{case},", "nan,"))
    loaded = load_runs([experiment])
    assert not loaded.problems
    assert "nan" in set(loaded.rows["case"])


def test_duplicate_models_and_postprocessed_results(runs, tmp_path):
    shutil.copytree(runs / "muscle_unet_2ch_dice_seed1", tmp_path / "copies" / "muscle_unet_2ch_dice_seed1")
    loaded = load_runs([runs, tmp_path / "copies"])
    assert "the same model and seed" in dict(loaded.problems)[str(tmp_path / "copies" / "muscle_unet_2ch_dice_seed1")]

    for path in (runs / "muscle_unet_1ch_dicece").glob("fold*/test_metrics.csv"):
        rows = pd.read_csv(path)
        copies = [rows.assign(postprocessing=name) for name in ("none", "largest component")]
        pd.concat(copies).to_csv(path, index=False)
    loaded = load_runs([runs])
    name = "muscle_unet_1ch_dicece + largest component"
    assert name in loaded.models
    assert name not in {pair.model for pair in choose_comparisons(loaded.models)}
    planned = choose_comparisons(
        loaded.models, compare=[f"{name} = muscle_unet_1ch_dicece", f"{name}=muscle_unet_2ch_dice"]
    )
    assert planned == [(name, "muscle_unet_1ch_dicece"), (name, "muscle_unet_2ch_dice")]
    table = comparison_table(Results(loaded, planned).quantities["dice"])
    assert [float(row[3].text) == 0 for row in table.rows] == [True, False]
    with pytest.raises(ValueError, match="no model '' to compare; expected one of"):
        choose_comparisons(loaded.models, compare=["muscle_unet_2ch_dice"])
    assert len(claims_table(Results(loaded, [])).rows) == 4


def test_calibration_tables_and_figures(runs, tmp_path):
    # The class has 36 of 64 pixels.
    add_calibration(runs / "muscle_unet_2ch_dice_seed0", {"none": 0.82, "temperature": 36 / 64})
    add_calibration(runs / "muscle_unet_2ch_dice_seed1", {"none": 0.905, "temperature": 36 / 64})
    add_calibration(runs / "muscle_unet_1ch_ceconf", {"none": 0.7})
    (runs / "muscle_unet_1ch_ceconf" / "fold1" / "test_calibration.csv").write_text("case\n")
    with blank_figures():
        write_report([runs], tmp_path / "out")
    loaded = load_runs([runs])
    assert "muscle_unet_1ch_ceconf" in loaded.models
    name = f"{runs / 'muscle_unet_1ch_ceconf'}, calibration"
    assert "fold1/test_calibration.csv lacks the columns" in dict(loaded.problems)[name]
    assert len(loaded.calibration) == 6 * (2 + 2) * 20

    table = calibration_table(Results(loaded, []))
    cells = {(row[0].text, row[1].text): row[2:] for row in table.rows}
    assert set(cells) == {("muscle_unet_2ch_dice", "-"), ("muscle_unet_2ch_dice", "temperature")}
    plain, scaled = cells["muscle_unet_2ch_dice", "-"], cells["muscle_unet_2ch_dice", "temperature"]
    frequency = 36 / 64
    brier = frequency * (1 - frequency)
    uncalibrated = brier + ((0.82 - frequency) ** 2 + (0.905 - frequency) ** 2) / 2
    assert [cell.text for cell in plain[:3]] == [
        *["0.3000 ± 0.0000"] * 2,
        f"{uncalibrated:.4f} ± 0.0000",
    ]
    assert [cell.text for cell in scaled[:3]] == ["0.0000 ± 0.0000"] * 2 + [f"{brier:.4f} ± 0.0000"]
    assert [cell.best for cell in scaled[:3]] == [True] * 3
    # The deviation from 36 of 64 that is expected by chance is 0.798 +- 0.603 standard deviations. The table contains
    # the mean over two seeds of six patients.
    bound = (0.798 + 1.96 * 0.603 / np.sqrt(12)) * np.sqrt(64 * brier)
    assert 64 * float(scaled[3].text) == pytest.approx(bound, rel=0.1)
    assert scaled[4].text == "6"

    points = reliability(loaded.calibration).loc[("muscle_unet_2ch_dice", "none")]
    assert points["count"].to_dict() == {16: 384, 18: 384}
    np.testing.assert_allclose(points["probability"], [0.82, 0.905], rtol=1e-6)
    np.testing.assert_allclose(points["frequency"], frequency)
    assert (tmp_path / "out" / "figures" / "reliability.svg").is_file()
    figure = reliability_plot(pd.concat([loaded.calibration.assign(model=name) for name in "abcde"]))
    figure.savefig(tmp_path / "several.svg")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == list("abcde")
    for axes in panels:
        _, plain_line, scaled_line = axes.lines
        np.testing.assert_allclose(plain_line.get_xdata(), [0.82, 0.905], rtol=1e-6)
        np.testing.assert_allclose(scaled_line.get_xydata(), [[frequency, frequency]])
    # Tables of metrics have a dash for models without probabilities.
    overview = overview_table(Results(loaded, []))
    column = overview.columns.index("ECE")
    texts = {row[0].text: row[column].text for row in overview.rows}
    assert texts["muscle_unet_1ch_dicece"] == "-"
    assert texts["muscle_unet_2ch_dice"].startswith("0.300 ±")
    assert class_table(Results(loaded, [])).columns[-4:] == ["ECE", "Brier", "DSC where found", "failures"]


def test_all_formats_have_the_same_content():
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


def test_missing_runs_unknown_models_and_mixed_units_raise_errors(runs, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"None of the runs can be reported:\n.*missing: There is no fold"):
        load_runs([tmp_path / "missing"])
    with pytest.raises(ValueError, match="no model 'demo' to compare; expected one of"):
        write_report([runs], tmp_path / "out", "demo")
    other = runs / "other"
    write_experiment(other, 1, monkeypatch)
    for path in other.glob("fold*/test_metrics.csv"):
        pd.read_csv(path).assign(unit="px").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"different units \('mm' in .+, 'px' in .+\); expected the same unit"):
        load_runs([runs])
