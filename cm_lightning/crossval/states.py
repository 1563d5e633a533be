"""States of folds, as any machine that sees their folders can tell them from the files."""

import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

from cm_lightning.crossval.progress import trained_epochs
from cm_lightning.data.splits import STUDY_FOLDS
from cm_lightning.errors import InputError
from cm_lightning.metrics import SCORE
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten
from cm_lightning.runs.lock import LOCK_FILE
from cm_lightning.tracking.metrics_file import read_rows

State = Literal["waiting", "running", "interrupted", "trained", "finished"]

# What a run writes into its lock.
OWNER = re.compile(r"process (\d+) on (.+)")
# A run on another machine counts as running if one of its files changed within this number of seconds.
SILENCE = 900.0


def state_of(fold: FoldFolder) -> State:
    """Determine the state of a fold.

    A process of this machine is looked up. Of a process of another machine, it is only known when it last wrote a file.

    Args:
        fold: Folder of the fold, which does not have to exist.

    Returns:
        ``waiting`` without files, ``running``, ``interrupted`` in the training, ``trained`` without results of the
        test, or ``finished``.
    """
    if is_finished(fold):
        return "finished"
    if _is_running(fold):
        return "running"
    if fold.finished.is_file():
        return "trained"
    return "interrupted" if fold.path.is_dir() else "waiting"


def is_finished(fold: FoldFolder) -> bool:
    """Return whether the training of a fold ended, and its last checkpoint was tested."""
    last = fold.resumable_checkpoint()
    # Runs of earlier versions have neither a lock nor a marker.
    is_interrupted = (fold.path / LOCK_FILE).is_file() and not fold.finished.is_file()
    if last is None or is_interrupted or not fold.test_metrics.is_file():
        return False
    return fold.test_metrics.stat().st_mtime >= last.stat().st_mtime


def number_of_folds(settings: Settings) -> int:
    """Return the number of folds of an experiment.

    Args:
        settings: Its settings, with dotted names.
    """
    return {"study": STUDY_FOLDS, "kfold": settings["data.n_folds"], "official": 1}[settings["data.split"]]


def describe_state(fold: FoldFolder) -> str:
    """Return the state of a fold, with the number of epochs that it has been trained if it has begun."""
    state, epochs = state_of(fold), trained_epochs(fold)
    return f"{state} after {epochs} epochs" if epochs and state != "finished" else state


def owner_of(fold: FoldFolder) -> tuple[int, str] | None:
    """Return the process and the machine that trained a fold last; None if this is not known."""
    lock = fold.path / LOCK_FILE
    match = OWNER.match(lock.read_text(errors="replace")) if lock.is_file() else None
    return (int(match[1]), match[2].strip()) if match else None


def last_change(fold: FoldFolder) -> float | None:
    """Return the time at which a fold last wrote a file, in seconds since 1970; None if it has none."""
    files = [fold.metrics, fold.last_checkpoint, fold.test_metrics, fold.config, fold.log, fold.path / LOCK_FILE]
    return max((path.stat().st_mtime for path in files if path.is_file()), default=None)


def show_status(folder: Path) -> None:
    """Print a table of all folds below a folder.

    Args:
        folder: Folder of an experiment, or a folder of experiments such as ``outputs``.

    Raises:
        InputError: The folder contains no folds.
    """
    experiments = list(_experiments(folder))
    if not experiments:
        raise InputError(
            f"{folder} contains no folds of crossval or fit; expected the folder of an experiment, or a folder of "
            "experiments, which this machine sees."
        )
    table = Table("fold", "state", "epoch", "best Dice", "last change", "machine", title=str(folder))
    states: list[State] = []
    for experiment in experiments:
        for fold in _expected_folds(experiment):
            state = state_of(fold)
            states.append(state)
            table.add_row(fold.name, state, _epochs(fold), _best(fold), _age(fold), (owner_of(fold) or ("", ""))[1])
    console = Console()
    console.print(table)
    counts = (f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    console.print(f"{len(states)} folds: {', '.join(counts)}.")


def _is_running(fold: FoldFolder) -> bool:
    owner = owner_of(fold)
    if owner is None:
        return False
    process, machine = owner
    lock = fold.path / LOCK_FILE
    if machine == os.uname().nodename:
        try:
            # A process that began after the lock was written has the same number by chance.
            return psutil.Process(process).create_time() <= lock.stat().st_mtime + 1
        except psutil.Error:
            return False
    changed = last_change(fold)
    return not fold.finished.is_file() and changed is not None and time.time() - changed < SILENCE


def _experiments(folder: Path) -> Iterator[ExperimentFolder]:
    """Find the experiments: the folder itself, or the folders in it and one level below."""
    candidates = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
    return (ExperimentFolder(path) for path in candidates if _holds_folds(path))


def _holds_folds(path: Path) -> bool:
    return any(re.fullmatch(r"fold\d+", child.name) and child.is_dir() for child in path.glob("fold*"))


def _expected_folds(experiment: ExperimentFolder) -> list[FoldFolder]:
    """Return the folds of the split, also those that have not begun, and folds beyond them."""
    existing = [fold for fold in experiment.folds() if re.fullmatch(r"fold\d+", fold.path.name)]
    numbers = {int(fold.path.name.removeprefix("fold")) for fold in existing}
    with_settings = next((fold for fold in existing if fold.config.is_file()), None)
    if with_settings is not None:
        numbers |= set(range(number_of_folds(flatten(with_settings.read_settings()))))
    return [experiment.fold(index) for index in sorted(numbers)]


def _epochs(fold: FoldFolder) -> str:
    epochs = trained_epochs(fold)
    planned = flatten(fold.read_settings()).get("trainer.max_epochs") if fold.config.is_file() else None
    return f"{epochs} of {planned}" if planned else str(epochs)


def _best(fold: FoldFolder) -> str:
    rows = read_rows(fold.metrics) if fold.metrics.is_file() else []
    scores = [float(row[SCORE]) for row in rows if row.get(SCORE)]
    return f"{max(scores):.3f}" if scores else ""


def _age(fold: FoldFolder) -> str:
    changed = last_change(fold)
    return "" if changed is None else f"{timedelta(seconds=round(max(time.time() - changed, 0)))} ago"
