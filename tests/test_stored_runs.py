"""Compatibility with stored runs of an earlier version: the current code continues them with the same results."""

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
from cm_lightning.metrics.segmentation import VOXELS
from tests.conftest import blank_figures

STORED = Path(__file__).parent / "stored_runs"
FINISHED = Path("finished") / "fold1"
INTERRUPTED = Path("interrupted") / "fold1"
# Tolerances of recomputed results. With other versions of PyTorch and NumPy, counts can differ by a few voxels.
COMPUTED = {"rtol": 1e-3, "atol": 1e-4}
COUNTED = {"rtol": 1e-3, "atol": 2.0}
# Tolerances of results that are computed from stored results.
POOLED = {"rtol": 1e-6, "atol": 1e-9}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Return a folder with the reproducible data set of the stored runs, which must not be changed."""
    settings = yaml.safe_load((STORED / "settings.yaml").read_text())["data"]
    folder = tmp_path_factory.mktemp("stored_runs")
    options = [f"--{key}={value}" for key, value in settings["phantom"].items()]
    main(["phantom", str(folder / settings["root"]), *options])
    return folder


@pytest.fixture
def outputs(phantoms, tmp_path, monkeypatch):
    """Copy the data and the stored experiments to a working directory, and return their output folder."""
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    shutil.copy(STORED / "settings.yaml", tmp_path)
    for experiment in ("finished", "interrupted", "crossval"):
        shutil.copytree(STORED / experiment, tmp_path / "outputs" / experiment)
    # Git does not store modification times, and crossval repeats a test if the checkpoint is newer than its results.
    for path in tmp_path.rglob("*.ckpt"):
        os.utime(path, (0, 0))
    monkeypatch.chdir(tmp_path)
    return Path("outputs")


def assert_same_table(path, stored, tolerance):
    table, expected = pd.read_csv(path), pd.read_csv(stored)
    # Newer versions store more columns of test_metrics.csv: numbers of voxels, and the tolerance of the surface Dice.
    added = {*VOXELS, "tolerance"}
    assert set(table) - set(expected) <= added
    pd.testing.assert_frame_equal(table[list(expected)], expected, check_exact=False, **tolerance, obj=path.name)


def read_log(path):
    """Read the logged metrics of a run, except durations."""
    logged = pd.read_csv(path)
    return logged.drop(columns=[name for name in logged if name.startswith(("time/", "cm/solve_ms_per_frame"))])


def read_settings(path):
    """Read the settings of a run with dotted names, except the path of its initial checkpoint."""
    flat = pd.json_normalize(yaml.safe_load(path.read_text())).iloc[0].to_dict()
    return {name: value for name, value in flat.items() if name != "ckpt_path"}


def snapshot(folder):
    """Return the content and the modification time of every file in a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_results_of_a_finished_fold_are_reproduced(outputs):
    folder, before = outputs / FINISHED, STORED / FINISHED
    for path in folder.glob("test_*"):
        path.unlink()
    options = ["--config=settings.yaml", "--experiment=finished", "--data.fold=1", "--model.largest_component=true"]
    with blank_figures():
        main(["test", *options, "--ckpt_path=best"])
    for name in ("metrics", "summary", "cases"):
        assert_same_table(folder / f"test_{name}.csv", before / f"test_{name}.csv", COMPUTED)
    for name in ("levels", "calibration", "confusion"):
        assert_same_table(folder / f"test_{name}.csv", before / f"test_{name}.csv", COUNTED)
    plan, stored_plan = (json.loads((path / "test_plan.json").read_text()) for path in (folder, before))
    assert {**plan, "made_with": None} == {**stored_plan, "made_with": None}
    # One row is appended to the log, and the existing rows do not change.
    logged, stored = read_log(folder / "metrics.csv"), read_log(before / "metrics.csv")
    pd.testing.assert_frame_equal(logged[:-1], stored)
    pd.testing.assert_frame_equal(logged[-1:].reset_index(drop=True), stored[-1:].reset_index(drop=True), **COMPUTED)


def test_an_interrupted_fold_is_resumed_with_the_same_results(outputs, caplog):
    folder, before, uninterrupted = outputs / INTERRUPTED, STORED / INTERRUPTED, STORED / FINISHED
    with blank_figures():
        main(["fit", f"--config={before / 'config.yaml'}", "--ckpt_path=last"])
    assert "Resumed with" not in caplog.text  # no setting was changed
    settings, stored_settings = read_settings(folder / "config.yaml"), read_settings(before / "config.yaml")
    del stored_settings["data.pairs_per_case"]  # no longer a setting, because the task determines it
    assert {name: settings.get(name) for name in stored_settings} == stored_settings

    logged, earlier, complete = (read_log(path / "metrics.csv") for path in (folder, before, uninterrupted))
    pd.testing.assert_frame_equal(logged.loc[: len(earlier) - 1, list(earlier)], earlier)
    assert logged["epoch"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # one row of validation and one of training per epoch
    pd.testing.assert_frame_equal(logged, complete.loc[: len(logged) - 1, list(logged)], **COMPUTED)

    last, expected = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (folder, uninterrupted)
    )
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert set(last) >= set(expected)  # newer versions store more
    # The score of the stored best checkpoint is known, although the folder of the run was moved.
    validated = logged.dropna(subset="val/dice/mean")
    assert best["epoch"] == validated.loc[validated["val/dice/mean"].idxmax(), "epoch"]
    assert last["epoch"] == expected["epoch"] == 3
    # A setting of newer versions, whose default is what earlier ones did.
    assert last["hyper_parameters"] == {**expected["hyper_parameters"], "dice_background": True}
    assert last["temperature"] == pytest.approx(expected["temperature"], rel=1e-2)
    assert last["largest_component_gain"] == pytest.approx(expected["largest_component_gain"], abs=5e-3)
    assert best["temperature"] > 0
    assert list(best["largest_component_gain"]) == list(expected["largest_component_gain"])


def test_a_finished_cross_validation_is_pooled_but_not_repeated(outputs, monkeypatch):
    experiment = outputs / "crossval"
    tables = ("cv_metrics.csv", "cv_summary.csv")
    for name in tables:
        (experiment / name).unlink()
    before = snapshot(experiment)

    class NoProcess(subprocess.Popen):
        def __init__(self, *args, **_):
            raise AssertionError(f"A process was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", NoProcess)
    main(["crossval", "--config=settings.yaml", "--experiment=crossval", "--devices", "cpu"])
    for name in tables:
        assert_same_table(experiment / name, STORED / "crossval" / name, POOLED)
        (experiment / name).unlink()
    assert snapshot(experiment) == before


def test_tables_of_a_report_are_reproduced(outputs):
    with blank_figures():
        main(["report", str(outputs / "crossval"), "--output=report"])
    tables = {path.name: path.read_text() for path in Path("report/tables").glob("*.csv")}
    assert tables == {path.name: path.read_text() for path in (STORED / "report").glob("*.csv")}
