"""Dashboard: panels, grouping of runs, and dry runs without an upload."""

import json
import re
import sys

import pytest

from cm_lightning.main import main
from cm_lightning.tracking.dashboard import build_dashboard, panel_keys, plan_sections
from tests.conftest import CONFIGS

CLASSES = ["soleus", "gastrocnemius_lateralis"]
# Keys that runs log.
OVERLAP, DISTANCES = "dice|iou|precision|recall|miss_rate|fall_out", "asd|hd"
LOGGED = re.compile(
    rf"train/(loss|lr)|val/loss|(val|test)/({OVERLAP}|{DISTANCES})/(mean|{'|'.join(CLASSES)})|best/val/dice/mean"
    rf"|mc/entropy/(mean|{'|'.join(CLASSES)})|mc/ece|cm/mean|time/(epoch_s|cases_per_s)"
    r"|media/test/worst|media/val/(overlay|confidence|error|entropy)|tables/(test_cases|cv_folds)|plots/(reliability|confusion|cv_box)"
    rf"|cv/({OVERLAP}|{DISTANCES})/(mean|std)"
)


@pytest.fixture
def workspace():
    pytest.importorskip("wandb_workspaces")
    return build_dashboard("team", "ultrasound", "overview", CLASSES)


def dump(workspace):
    return json.loads(workspace._to_model().model_dump_json(by_alias=True))


def test_panels_show_only_logged_keys(workspace):
    keys = panel_keys(workspace)
    assert [key for key in sorted(keys) if not LOGGED.fullmatch(key)] == []
    assert {"val/dice/soleus", "tables/test_cases", "media/val/entropy", "cv/dice/std"} <= keys
    planned = [panel for panels in plan_sections(CLASSES).values() for panel in panels]
    assert keys == {key for panel in planned for key in panel.keys}
    assert 13 <= len(planned) <= 20
    written = json.dumps(dump(workspace))
    assert [key for key in keys if f'"{key}"' not in written] == []


def test_panels_show_means_over_folds(workspace):
    section = dump(workspace)["spec"]["section"]
    sections = {item["name"]: item["panels"] for item in section["panelBankConfig"]["sections"]}
    assert list(sections) == [
        *("overview", "training", "classes", "uncertainty", "media", "cases (worst first)", "cross-validation")
    ]
    panels = [panel for section_panels in sections.values() for panel in section_panels]
    assert len({panel["__id__"] for panel in panels}) == len(panels)
    curves = [panel["config"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert {curve["xAxis"] for curve in curves} == {"epoch"}
    bars = [panel["config"] for panel in panels if panel["viewType"] == "Bar Chart"]
    assert {(item["groupBy"], item["groupAgg"], item["groupArea"]) for item in [*curves, *bars]} == {
        ("group", "mean", "stddev")
    }
    (runs,) = section["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    (job_filter,) = runs["filters"]["filters"]
    assert (job_filter["key"]["name"], job_filter["op"], job_filter["value"]) == (
        "jobType",
        "IN",
        ["fold", "cv-summary"],
    )
    # The summary run does not affect the means over folds, since no panel shows keys of both.
    for planned in [planned for section_panels in plan_sections(CLASSES).values() for planned in section_panels]:
        assert len({re.search("(^|/)cv[/_]", key) is None for key in planned.keys}) == 1


def test_dry_runs_are_reproducible(workspace, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(type(workspace), "save", lambda _: pytest.fail("a dry run must not upload"))
    arguments = ["dashboard", "--entity=team", "--project=ultrasound"]
    first, second, nerves = (tmp_path / name for name in ("a.json", "b/c.json", "nerves.json"))
    main([*arguments, "--dry_run", str(first)])
    assert "panels to" in capsys.readouterr().out
    main([*arguments, "--fit_config", str(CONFIGS / "muscle_2ch.yaml"), "--dry_run", str(second)])
    # The former names of these options still work.
    main([*arguments, "--config", str(CONFIGS / "muscle_2ch.yaml"), "--dry-run", str(tmp_path / "again.json")])
    assert "because --config is for options of dashboard" in capsys.readouterr().out
    assert (tmp_path / "again.json").read_text() == second.read_text()
    # Options of the command in a configuration file.
    (tmp_path / "dashboard.yaml").write_text(f"entity: team\nproject: ultrasound\ndry_run: {tmp_path / 'own.json'}\n")
    main(["dashboard", f"--config={tmp_path / 'dashboard.yaml'}"])
    assert (tmp_path / "own.json").read_text() == second.read_text()
    assert first.read_text() == second.read_text()
    assert json.loads(first.read_text())["displayName"] == "cm_lightning"
    main([*arguments, "--name=nerves", "--classes", "nerve", "--dry_run", str(nerves)])
    assert "val/dice/nerve" in nerves.read_text()
    assert "soleus" not in nerves.read_text()


def test_failed_uploads_and_missing_packages_raise_errors(workspace, monkeypatch):
    from wandb.errors import UsageError

    def fail(_):
        raise UsageError("No API key configured. Use `wandb login` to log in.\nMore.")

    monkeypatch.setattr(type(workspace), "save", fail)
    arguments = ["dashboard", "--entity=team", "--project=ultrasound"]
    with pytest.raises(ValueError, match=r"not be saved to team/ultrasound: No API key .* log in\. Expected a network"):
        main(arguments)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"not installed; install it with pip install 'cm_lightning\[dashboard\]'"):
        main(arguments)
