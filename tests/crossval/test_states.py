"""States of folds, as their files show them."""

import os
import time

import pytest
import yaml

from cm_lightning.crossval.states import SILENCE, show_status, state_of
from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder
from cm_lightning.runs.lock import LOCK_FILE
from tests.crossval.test_progress import write_epochs


@pytest.fixture
def fold(tmp_path):
    return ExperimentFolder(tmp_path / "demo").fold(1)


def train(fold, owner=None):
    write_epochs(fold, 3)
    fold.checkpoints.mkdir(exist_ok=True)
    fold.last_checkpoint.touch()
    settings = {"data": {"split": "kfold", "n_folds": 3}, "trainer": {"max_epochs": 5}}
    fold.config.write_text(yaml.safe_dump(settings))
    (fold.path / LOCK_FILE).write_text(owner or f"process {2**22 + 1} on {os.uname().nodename}\n")


def set_age(fold, seconds):
    for path in [fold.path / LOCK_FILE, *fold.path.rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_fold_from_its_first_file_to_its_test(fold):
    assert state_of(fold) == "waiting"
    train(fold)
    assert state_of(fold) == "interrupted"  # there is no such process
    (fold.path / LOCK_FILE).write_text(f"process {os.getpid()} on {os.uname().nodename}\n")
    assert state_of(fold) == "running"
    set_age(fold, 10 * 365 * 86400)  # this process began later, and has the same number by chance
    assert state_of(fold) == "interrupted"
    fold.finished.write_text("{}")
    assert state_of(fold) == "trained"
    fold.test_metrics.touch()
    assert state_of(fold) == "finished"
    fold.finished.unlink()  # a test in the middle of a training does not finish it
    assert state_of(fold) == "interrupted"


def test_a_fold_of_another_machine_runs_as_long_as_it_writes(fold):
    train(fold, "process 1 on another-machine\n")
    assert state_of(fold) == "running"
    set_age(fold, 2 * SILENCE)
    assert state_of(fold) == "interrupted"


def test_the_table_names_all_folds(fold, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    train(fold, "process 1 on another-machine\n")
    for folder in (tmp_path, tmp_path / "demo"):
        show_status(folder)
        printed = capsys.readouterr().out
        rows = [line for line in printed.splitlines() if "demo/fold" in line]
        assert [("waiting" in row, "running" in row) for row in rows] == [(True, False), (False, True), (True, False)]
        assert "3 of 5" in rows[1]
        assert "another-machine" in rows[1]
        assert "3 folds: 1 running, 2 waiting." in printed


def test_a_folder_without_folds_is_refused(tmp_path):
    (tmp_path / "folded").mkdir()
    with pytest.raises(InputError, match="contains no folds"):
        show_status(tmp_path)
