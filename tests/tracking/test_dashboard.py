"""The workspace: what its panels show, and that nothing is sent unless it is asked for."""

import json
import re
import sys

import pytest

from cm_lightning.main import main
from cm_lightning.tracking.dashboard import build_dashboard, panel_keys, plan_sections
from tests.conftest import CONFIGS

CLASSES = ["soleus", "gastrocnemius_lateralis"]
# What runs log; the classes' names are those above.
OVERLAP, DISTANCES = "dice|iou|precision|recall|miss_rate|fall_out", "asd|hd"
LOGGED = re.compile(
    rf"train/(loss|lr)|val/loss|(val|test)/({OVERLAP}|{DISTANCES})/(mean|{'|'.join(CLASSES)})|best/val/dice/mean"
    rf"|mc/entropy/(mean|{'|'.join(CLASSES)})|mc/ece|cm/mean|time/(epoch_s|cases_per_s)"
    r"|media/val/(overlay|confidence|error|entropy)|tables/(test_cases|cv_folds)|plots/(reliability|confusion|cv_box)"
    rf"|cv/({OVERLAP}|{DISTANCES})/(mean|std)"
)


@pytest.fixture
def workspace():
    pytest.importorskip("wandb_workspaces")
    return build_dashboard("team", "ultrasound", "overview", CLASSES)


def dump(workspace):
    return json.loads(workspace._to_model().model_dump_json(by_alias=True))


def test_panels_show_what_runs_log(workspace):
    keys = panel_keys(workspace)
    assert [key for key in sorted(keys) if not LOGGED.fullmatch(key)] == []
    assert {"val/dice/soleus", "tables/test_cases", "media/val/entropy", "cv/dice/std"} <= keys
    planned = [shown for panels in plan_sections(CLASSES).values() for shown in panels]
    assert keys == {key for shown in planned for key in shown.keys}
    assert 13 <= len(planned) <= 20
    written = json.dumps(dump(workspace))
    assert [key for key in keys if f'"{key}"' not in written] == []


def test_means_over_folds_by_epoch(workspace):
    section = dump(workspace)["spec"]["section"]
    sections = {item["name"]: item["panels"] for item in section["panelBankConfig"]["sections"]}
    assert list(sections) == [
        *("overview", "training", "classes", "uncertainty", "media", "cases (worst first)", "cross-validation")
    ]
    panels = [panel for found in sections.values() for panel in found]
    assert len({panel["__id__"] for panel in panels}) == len(panels)
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {curve["xAxis"] for curve in curves} == {"epoch"}
    bars = [panel["config"] for panel in panels if panel["viewType"] == "Bar Chart"]
    assert {(item["groupBy"], item["groupAgg"], item["groupArea"]) for item in [*curves, *bars]} == {
        ("group", "mean", "stddev")
    }
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    (chosen,) = runs["filters"]["filters"]
    assert (chosen["key"]["name"], chosen["op"], chosen["value"]) == ("jobType", "IN", ["fold", "cv-summary"])
    # The summary run adds nothing to the means of the folds: no panel shows keys of both.
    for shown in [shown for found in plan_sections(CLASSES).values() for shown in found]:
        assert len({re.search("(^|/)cv[/_]", key) is None for key in shown.keys}) == 1


def test_dry_run_writes_the_same_every_time(workspace, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(type(workspace), "save", lambda _: pytest.fail("a dry run sends nothing"))
    words = ["dashboard", "--entity=team", "--project=ultrasound"]
    first, second, nerves = (tmp_path / name for name in ("a.json", "b/c.json", "nerves.json"))
    main([*words, "--dry_run", str(first)])
    assert "panels to" in capsys.readouterr().out
    main([*words, "--fit_config", str(CONFIGS / "muscle_2ch.yaml"), "--dry_run", str(second)])
    # As it was called.
    main([*words, "--config", str(CONFIGS / "muscle_2ch.yaml"), "--dry-run", str(tmp_path / "again.json")])
    assert "is a configuration of fit; use --fit_config instead of --config" in capsys.readouterr().out
    assert (tmp_path / "again.json").read_text() == second.read_text()
    # Its own options in a file.
    (tmp_path / "dashboard.yaml").write_text(f"entity: team\nproject: ultrasound\ndry_run: {tmp_path / 'own.json'}\n")
    main(["dashboard", f"--config={tmp_path / 'dashboard.yaml'}"])
    assert (tmp_path / "own.json").read_text() == second.read_text()
    assert first.read_text() == second.read_text()
    assert json.loads(first.read_text())["displayName"] == "cm_lightning"
    main([*words, "--name=nerves", "--classes", "nerve", "--dry_run", str(nerves)])
    assert "val/dice/nerve" in nerves.read_text()
    assert "soleus" not in nerves.read_text()


def test_faults_are_sentences(workspace, monkeypatch):
    from wandb.errors import UsageError

    def refuse(_):
        raise UsageError("No API key configured. Use `wandb login` to log in.\nMore.")

    monkeypatch.setattr(type(workspace), "save", refuse)
    words = ["dashboard", "--entity=team", "--project=ultrasound"]
    with pytest.raises(ValueError, match=r"not be saved to team/ultrasound: No API key .* log in\. Expected a login"):
        main(words)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"not installed; expected it from pip install 'cm_lightning\[dashboard\]'"):
        main(words)
