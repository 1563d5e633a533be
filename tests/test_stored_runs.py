"""Runs of an earlier version, taken up with today's code: the same results, nothing lost and nothing run twice."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from cm_lightning.main import main
from tests.conftest import blank_figures

STORED = Path(__file__).parent / "stored_runs"
FINISHED = Path("finished") / "fold1"
INTERRUPTED = Path("interrupted") / "fold1"
# Results are computed anew, perhaps by other versions of torch and NumPy, of which counts may be off by some voxels.
COMPUTED = {"rtol": 1e-3, "atol": 1e-4}
COUNTED = {"rtol": 1e-3, "atol": 2.0}
# Results are added up from stored ones.
POOLED = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """The data of the stored runs, which are seeded; not to be changed."""
    settings = yaml.safe_load((STORED / "settings.yaml").read_text())["data"]
    folder = tmp_path_factory.mktemp("stored_runs")
    words = [f"--{key}={value}" for key, value in settings["phantom"].items()]
    main(["phantom", str(folder / settings["root"]), *words])
    return folder


@pytest.fixture
def outputs(phantoms, tmp_path, monkeypatch):
    """The folder of the stored experiments, copied to where their relative paths lead."""
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    shutil.copy(STORED / "settings.yaml", tmp_path)
    for experiment in ("finished", "interrupted", "crossval"):
        shutil.copytree(STORED / experiment, tmp_path / "outputs" / experiment)
    # A checkout forgets times, and crossval tests again what was trained after its test.
    for path in tmp_path.rglob("*.ckpt"):
        os.utime(path, (0, 0))
    monkeypatch.chdir(tmp_path)
    return Path("outputs")


def assert_same_table(path, stored, tolerance):
    found, expected = pd.read_csv(path), pd.read_csv(stored)
    pd.testing.assert_frame_equal(found, expected, check_exact=False, **tolerance, obj=path.name)


def timeless(path):
    """What a run logged, but how long it took."""
    logged = pd.read_csv(path)
    return logged.drop(columns=[name for name in logged if name.startswith(("time/", "cm/solve_ms_per_frame"))])


def settings_of(path):
    """The settings of a run with dotted names, but those that say which checkpoint it began with."""
    flat = pd.json_normalize(yaml.safe_load(path.read_text())).iloc[0].to_dict()
    return {name: value for name, value in flat.items() if name != "ckpt_path"}


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_fold_is_tested_with_the_same_results(outputs):
    folder, before = outputs / FINISHED, STORED / FINISHED
    for path in folder.glob("test_*"):
        path.unlink()
    words = ["--config=settings.yaml", "--experiment=finished", "--data.fold=1", "--model.largest_component=true"]
    with blank_figures():
        main(["test", *words, "--ckpt_path=best"])
    for name in ("metrics", "summary", "cases"):
        assert_same_table(folder / f"test_{name}.csv", before / f"test_{name}.csv", COMPUTED)
    for name in ("levels", "calibration", "confusion"):
        assert_same_table(folder / f"test_{name}.csv", before / f"test_{name}.csv", COUNTED)
    plan, stored_plan = (json.loads((place / "test_plan.json").read_text()) for place in (folder, before))
    assert {**plan, "made_with": None} == {**stored_plan, "made_with": None}
    # The log keeps its rows, and has one more.
    logged, stored = timeless(folder / "metrics.csv"), timeless(before / "metrics.csv")
    pd.testing.assert_frame_equal(logged[:-1], stored)
    pd.testing.assert_frame_equal(logged[-1:].reset_index(drop=True), stored[-1:].reset_index(drop=True), **COMPUTED)


def test_an_interrupted_fold_goes_on_to_the_same_end(outputs, caplog):
    folder, before, whole = outputs / INTERRUPTED, STORED / INTERRUPTED, STORED / FINISHED
    with blank_figures():
        main(["fit", f"--config={before / 'config.yaml'}", "--ckpt_path=last"])
    assert "Resumed with" not in caplog.text  # no setting has another value than the run was started with
    found, asked = settings_of(folder / "config.yaml"), settings_of(before / "config.yaml")
    del asked["data.pairs_per_case"]  # since then the task's to say, and no setting
    assert {name: found.get(name) for name in asked} == asked

    logged, earlier, to_the_end = (timeless(place / "metrics.csv") for place in (folder, before, whole))
    pd.testing.assert_frame_equal(logged.loc[: len(earlier) - 1, list(earlier)], earlier)
    assert logged["epoch"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # two rows an epoch, of validation and of training
    pd.testing.assert_frame_equal(logged, to_the_end.loc[: len(logged) - 1, list(logged)], **COMPUTED)

    last, expected = (torch.load(place / "checkpoints" / "last.ckpt", weights_only=True) for place in (folder, whole))
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert set(last) == set(best) == set(expected)
    assert last["epoch"] == expected["epoch"] == 3
    assert last["hyper_parameters"] == expected["hyper_parameters"]
    assert last["temperature"] == pytest.approx(expected["temperature"], rel=1e-2)
    assert last["largest_component_gain"] == pytest.approx(expected["largest_component_gain"], abs=5e-3)
    assert best["temperature"] > 0
    assert list(best["largest_component_gain"]) == list(expected["largest_component_gain"])


def test_a_finished_crossval_is_pooled_and_not_run_again(outputs, monkeypatch):
    experiment = outputs / "crossval"
    tables = ("cv_metrics.csv", "cv_summary.csv")
    for name in tables:
        (experiment / name).unlink()
    before = contents(experiment)

    class NoProcess(subprocess.Popen):
        def __init__(self, *words, **_):
            raise AssertionError(f"A process was started: {words}")

    monkeypatch.setattr(subprocess, "Popen", NoProcess)
    main(["crossval", "--config=settings.yaml", "--experiment=crossval", "--devices", "cpu"])
    for name in tables:
        assert_same_table(experiment / name, STORED / "crossval" / name, POOLED)
        (experiment / name).unlink()
    assert contents(experiment) == before


def test_a_report_has_the_same_tables(outputs):
    with blank_figures():
        main(["report", str(outputs / "crossval"), "--output=report"])
    tables = {path.name: path.read_text() for path in Path("report/tables").glob("*.csv")}
    assert tables == {path.name: path.read_text() for path in (STORED / "report").glob("*.csv")}
