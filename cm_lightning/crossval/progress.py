"""Progress of a cross-validation: epochs of the running folds, and the time that is left."""

import time
from collections.abc import Sequence
from datetime import timedelta

from cm_lightning.runs import FoldFolder
from cm_lightning.tracking.metrics_file import read_rows

# Seconds between two lines in redirected output.
INTERVAL = 60.0


class FoldProgress:
    """Progress of the training of folds, as their files show it.

    The time left is estimated from all epochs that were trained since the start, and the epochs that are left. Tests
    are not counted.

    Args:
        folds: Folders of all folds that are to be run.
        epochs: Number of epochs of each.
    """

    def __init__(self, folds: Sequence[FoldFolder], epochs: Sequence[int]) -> None:
        self._epochs = dict(zip(folds, epochs, strict=True))
        self._started = time.monotonic()
        self._first = {fold: trained_epochs(fold) for fold in folds}

    def text(self, running: Sequence[FoldFolder], finished: int) -> str:
        """Describe the state in one line.

        Args:
            running: Folds that are being run.
            finished: Number of folds that are finished.

        Returns:
            For example "1 of 3 folds finished; demo/fold1 epoch 12 of 40; about 0:20:00 left".
        """
        trained = {fold: trained_epochs(fold) for fold in self._epochs}
        parts = [f"{finished} of {len(self._epochs)} folds finished"]
        parts += [f"{fold.name} epoch {trained[fold]} of {self._epochs[fold]}" for fold in running]
        # A fold that is trained again begins with fewer epochs than it had.
        done = sum(max(trained[fold] - self._first[fold], 0) for fold in self._epochs)
        left = sum(max(self._epochs[fold] - trained[fold], 0) for fold in self._epochs)
        if done and min(self._epochs.values()) > 0:
            seconds = (time.monotonic() - self._started) / done * left
            parts.append(f"about {timedelta(seconds=round(seconds))} left")
        return "; ".join(parts)


def trained_epochs(fold: FoldFolder) -> int:
    """Return the number of epochs that a fold has been trained, as its file of logged metrics shows it.

    Args:
        fold: Folder of the fold, which does not have to exist.
    """
    if not fold.metrics.is_file():
        return 0
    epochs = [int(row["epoch"]) for row in read_rows(fold.metrics) if "train/loss" in row and "epoch" in row]
    return max(epochs, default=-1) + 1
