"""Files of runs: names, which older runs also have, and search for experiments."""

import json
import os
import subprocess
import sys

import pytest

from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder, FoldFolder, find_experiments
from cm_lightning.runs.layout import check_determined, check_inside
from cm_lightning.runs.settings import conflicting_settings, flatten, may_differ


@pytest.fixture
def experiment(tmp_path):
    """Return an experiment with two folds: one with all kinds of files of a run, and one that was tested."""
    for fold in (0, 1):
        (tmp_path / f"nerve_2ch_seed3/fold{fold}/checkpoints").mkdir(parents=True)
    first = tmp_path / "nerve_2ch_seed3" / "fold0"
    (first / "checkpoints" / "last.ckpt").touch()
    for folder in ("pictures", "predictions", "wandb", "tensorboard"):
        (first / folder).mkdir()
    for name in ("config.yaml", "test_config.yaml", "metrics.csv", "test_plan.json", "notes.txt"):
        (first / name).touch()
    (first / "config.yaml").write_text("{experiment: x, data: {}, model: {}}")
    (tmp_path / "nerve_2ch_seed3" / "fold1" / "test_metrics.csv").touch()
    return ExperimentFolder(tmp_path / "nerve_2ch_seed3")


def test_names_of_files_and_folders(experiment):
    fold = experiment.fold(1)
    names = {
        "best_checkpoint": "checkpoints/best.ckpt",
        "last_checkpoint": "checkpoints/last.ckpt",
        "config": "config.yaml",
        "metrics": "metrics.csv",
        "test_metrics": "test_metrics.csv",
        "test_summary": "test_summary.csv",
        "summary": "summary.json",
        "test_levels": "test_levels.csv",
        "test_calibration": "test_calibration.csv",
        "test_cases": "test_cases.csv",
        "test_confusion": "test_confusion.csv",
        "test_plan": "test_plan.json",
        "pictures": "pictures",
        "predictions": "predictions",
        "tensorboard": "tensorboard",
        "log": "../fold1.log",
    }
    for name, path in names.items():
        assert getattr(fold, name).resolve() == (fold.path / path).resolve()
    assert fold.test_picture("a").relative_to(fold.path).as_posix() == "pictures/test_a.png"
    assert (fold.settings_file("fit"), fold.settings_file("test").name) == (fold.config, "test_config.yaml")
    assert (fold.name, fold.experiment) == ("nerve_2ch_seed3/fold1", experiment)
    assert (experiment.metrics.name, experiment.summary.name) == ("cv_metrics.csv", "cv_summary.csv")


def test_find_experiments_with_model_and_seed(experiment, tmp_path):
    assert find_experiments([tmp_path, experiment.path]) == [experiment]
    assert (experiment.model, experiment.seed) == ("nerve_2ch", 3)
    assert (ExperimentFolder(tmp_path / "plain").model, ExperimentFolder(tmp_path / "plain").seed) == ("plain", 0)
    assert [fold.path.name for fold in experiment.folds()] == ["fold0", "fold1"]
    assert experiment.tested_folds() == [experiment.fold(1)]
    (experiment.path / "fold10").mkdir()
    (experiment.path / "fold2").mkdir()
    assert [fold.path.name for fold in experiment.folds()] == ["fold0", "fold1", "fold2", "fold10"]
    missing = tmp_path / "missing"
    assert find_experiments([missing]) == [ExperimentFolder(missing)]


def test_earlier_runs_are_only_removed_with_overwrite(experiment):
    fold = experiment.fold(0)
    with pytest.raises(ValueError, match=r"fold0 already contains a run. Resume it with --ckpt_path last"):
        fold.remove_earlier_run(overwrite=False)
    fold.remove_earlier_run(overwrite=True)
    assert [path.name for path in fold.path.iterdir()] == ["notes.txt"]
    fold.remove_earlier_run(overwrite=False)  # the earlier run no longer exists


def test_checkpoints_by_name_and_by_path(experiment, tmp_path):
    fold = experiment.fold(1)
    with pytest.raises(FileNotFoundError, match=r"best\.ckpt \(--ckpt_path best\) does not exist"):
        fold.find_checkpoint("best")
    fold.best_checkpoint.touch()
    assert fold.find_checkpoint("best") == fold.best_checkpoint
    assert fold.find_checkpoint(str(fold.best_checkpoint)) == fold.best_checkpoint


def test_missing_and_damaged_files_raise_errors(experiment):
    fold = experiment.fold(1)
    with pytest.raises(FileNotFoundError, match=r"fold1/config\.yaml does not exist"):
        fold.read_settings()
    with pytest.raises(FileNotFoundError, match=r"fold1/test_plan\.json does not exist"):
        fold.read_test_plan()
    fold.test_plan.write_text("{")
    with pytest.raises(ValueError, match=r"fold1/test_plan\.json cannot be read as JSON"):
        fold.read_test_plan()
    for content in ([], None, {"fold": 1}, {"test_cases": {"0": []}}, {"test_cases": [["a"], [1]]}):
        fold.test_plan.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"fold1/test_plan\.json has no list of the test cases of every fold"):
            fold.read_test_plan()
    fold.test_plan.write_text(json.dumps({"test_cases": [["a"], ["b"]]}))
    assert fold.read_test_plan() == {"test_cases": [["a"], ["b"]]}
    fold.config.write_text("data: {root: data}\nmodel: 3\n")
    with pytest.raises(ValueError, match=r"fold1/config\.yaml lacks the settings model"):
        fold.read_settings("data", "model")


def test_folds_may_differ_in_paths_but_not_in_the_training():
    before = flatten({"data": {"root": "/a", "fold": 0}, "model": {"init_args": {"loss": "dice"}}, "seed": 1})
    after = flatten({"data": {"root": "/b", "fold": 1}, "model": {"init_args": {"loss": "CE"}}, "new": 2})
    assert conflicting_settings(before, after) == {"model.init_args.loss": ("dice", "CE")}


def test_folds_may_differ_in_all_settings_of_pictures_and_predictions():
    assert may_differ("pictures.every_n_epochs")
    assert may_differ("uncertainty.samples")
    assert may_differ("prediction.maps")
    assert may_differ("model.init_args.mc_dropout.samples")
    assert may_differ("checkpoint.dirpath")
    for key in ("checkpoint.monitor", "data.folds", "model.init_args.loss", "pictures_of", "trainer.max_epochs"):
        assert not may_differ(key)


def test_fold_folder_does_not_have_to_exist(tmp_path):
    assert not FoldFolder(tmp_path / "x" / "fold0").config.exists()


def test_only_folders_of_runs_are_deleted(tmp_path):
    """Another project's folder may have the same names of files."""
    fold = FoldFolder(tmp_path / "x" / "fold0")
    fold.checkpoints.mkdir(parents=True)
    (fold.checkpoints / "last.ckpt").touch()
    (fold.path / "metrics.csv").write_text("a\n1\n")
    for config in (None, "", "lr: 1", "{"):
        if config is not None:
            fold.config.write_text(config)
        with pytest.raises(ValueError, match=r"but no config.yaml of a run of cm_lightning"):
            fold.remove_earlier_run(overwrite=True)
        assert fold.last_checkpoint.is_file()
        assert fold.metrics.is_file()


def test_names_stay_inside_their_folder(tmp_path):
    check_inside("--experiment", "a/b", tmp_path)
    for name in ("../x", "a/../../x", "/etc/x", "", ".", "a/.."):
        with pytest.raises(ValueError, match=r"--experiment .* is outside of"):
            check_inside("--experiment", name, tmp_path)


def test_resuming_uses_the_newest_checkpoint(experiment):
    fold = experiment.fold(0)
    assert experiment.fold(1).resumable_checkpoint() is None
    assert fold.resumable_checkpoint() == fold.last_checkpoint
    slurm = fold.path / "hpc_ckpt_1.ckpt"
    slurm.touch()
    os.utime(fold.last_checkpoint, (2e9, 2e9))
    assert fold.resumable_checkpoint() == fold.last_checkpoint  # the training went on after it
    os.utime(slurm, (3e9, 3e9))
    assert fold.resumable_checkpoint() == slurm
    fold.remove_earlier_run(overwrite=True)
    assert not slurm.exists()  # Lightning would load it in a later run on SLURM


def test_a_folder_is_locked_until_its_process_ends(tmp_path):
    program = f"""
from pathlib import Path
from cm_lightning.runs.lock import RunLock
try:
    lock = RunLock(Path({str(tmp_path)!r}))
    print("locked", flush=True)
    input()
except ValueError as error:
    print(error, flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "locked\n"
        second = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
        assert f"Another process (process {first.pid} on" in second.stdout
        first.kill()
    assert subprocess.run(command, input="\n", capture_output=True, text=True, check=True).stdout == "locked\n"


def test_folders_of_a_run_cannot_be_set(tmp_path):
    folder = tmp_path / "outputs" / "muscle" / "fold0" / "checkpoints"
    check_determined("--checkpoint.dirpath", None, folder)
    check_determined("--checkpoint.dirpath", "elsewhere/other/fold2/checkpoints", folder)  # configuration of a run
    with pytest.raises(InputError, match=r"--checkpoint\.dirpath mine cannot be used"):
        check_determined("--checkpoint.dirpath", "mine", folder)
