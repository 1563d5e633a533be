"""Progress of a cross-validation, as the files of its folds show it."""

import csv

from cm_lightning.crossval import progress as module
from cm_lightning.crossval.progress import FoldProgress, trained_epochs
from cm_lightning.runs import ExperimentFolder


def write_epochs(fold, number):
    fold.path.mkdir(parents=True, exist_ok=True)
    with fold.metrics.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "train/loss", "val/loss"])
        writer.writeheader()
        for epoch in range(number):
            writer.writerow({"epoch": epoch, "val/loss": 0.5})
            writer.writerow({"epoch": epoch, "train/loss": 0.4})


def test_the_time_left_counts_the_epochs_of_all_folds(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    folds = [ExperimentFolder(tmp_path / "demo").fold(number) for number in range(3)]
    write_epochs(folds[1], 5)  # was interrupted
    progress = FoldProgress(folds, [10, 10, 10])
    assert progress.text(folds[:1], 0) == "0 of 3 folds finished; demo/fold0 epoch 0 of 10"
    now[0] += 120.0
    write_epochs(folds[0], 10)
    write_epochs(folds[1], 7)  # 12 epochs in 120 s, and 13 are left
    text = progress.text([folds[1]], 1)
    assert text == "1 of 3 folds finished; demo/fold1 epoch 7 of 10; about 0:02:10 left"


def test_a_fold_without_files_has_no_epochs(tmp_path):
    assert trained_epochs(ExperimentFolder(tmp_path).fold(0)) == 0
