"""Test results at a glance: table of cases, reliability diagram and confusion matrix."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torchmetrics.utilities.plot import plot_confusion_matrix

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data.augmentation import Batch
from cm_lightning.drawing import reliability_plot, save_figure
from cm_lightning.metrics import METRICS, apply_empty_policy
from cm_lightning.metrics.segmentation import confusion_counts
from cm_lightning.runs import FoldFolder
from cm_lightning.tasks import BaseTask
from cm_lightning.tasks.distributed import gather_cases
from cm_lightning.tracking.loggers import WandbRunLogger
from cm_lightning.tracking.policy import CASE_PICTURES
from cm_lightning.tracking.publishing import common_shape, padded, publish_figure
from cm_lightning.writing import write_table

# Key of the pictures of the worst cases.
WORST_CASES = f"{CASE_PICTURES}test/worst"
# Maximum number of rows of a table in loggers.
MAX_ROWS = 100


class CaseTable(Callback):
    """Callback that lists the test cases, the worst first, in ``test_cases.csv`` and as ``tables/test_cases``.

    Each row contains the mean over classes of the metrics of the study, and the Dice of every class. If either the
    prediction or the label of a class is empty, its metrics have their worst values. Loggers show up to 100 rows, W&B
    also the pictures of the worst cases, as ``media/test/worst``.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log the table."""
        if not (trainer.is_global_zero and isinstance(pl_module, BaseTask)) or pl_module.test_rows.empty:
            return
        folder = fold_folder(trainer)
        table = case_table(pl_module.test_rows)
        write_table(folder.test_cases, table)
        shown = table.head(MAX_ROWS).round(4)
        for logger in trainer.loggers:
            if isinstance(logger, WandbRunLogger):
                logger.attempt(partial(_log_cases, logger, shown, folder))
            elif isinstance(logger, TensorBoardLogger):
                lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy(object).tolist()]
                text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
                logger.experiment.add_text("tables/test_cases", text)


class ReliabilityPicture(Callback):
    """Callback that draws a reliability diagram after ``test``."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and log the diagram as ``pictures/reliability.png`` and ``plots/reliability``."""
        if not (trainer.is_global_zero and isinstance(pl_module, BaseTask)) or pl_module.test_calibration.empty:
            return
        folder = fold_folder(trainer)
        figure = reliability_plot(pl_module.test_calibration.assign(model=folder.name))
        save_figure(figure, folder.pictures / "reliability.png")
        publish_figure(trainer, "plots/reliability", figure)


class ConfusionPicture(Callback):
    """Callback that draws the confusion matrix after ``test``.

    ``test_confusion.csv`` contains the numbers of voxels of all cases at file resolution and without post-processing,
    with one row per label. ``pictures/confusion.png`` and ``plots/confusion`` show them as fractions of each label.
    The callback does nothing in a ``fast_dev_run``.
    """

    def __init__(self) -> None:
        self._cases: dict[str, NDArray[np.int64]] = {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the voxels of a case."""
        if isinstance(pl_module, BaseTask) and outputs:
            label = batch["native_label"][0, 0]
            counts = confusion_counts(outputs["prediction"], label, len(pl_module.class_names) + 1)
            self._cases[batch["case"][0]] = counts

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the cases of all processes; cases that the distributed sampler repeats are counted once."""
        self._cases = gather_cases(self._cases)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the confusion matrix of all cases."""
        cases, self._cases = self._cases, {}
        if not (trainer.is_global_zero and isinstance(pl_module, BaseTask) and cases):
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder, names = fold_folder(trainer), ["background", *pl_module.class_names]
        counts = np.sum(list(cases.values()), axis=0)
        write_table(folder.test_confusion, pd.DataFrame(counts, pd.Index(names, name="label"), names).reset_index())
        figure = confusion_plot(counts, names)
        save_figure(figure, folder.pictures / "confusion.png")
        publish_figure(trainer, "plots/confusion", figure)


def _log_cases(logger: WandbRunLogger, cases: pd.DataFrame, folder: FoldFolder) -> None:
    """Log the table of cases and, if pictures of patients are logged, those of the worst cases.

    The pictures are not in the table, from which they could not be removed before an upload.
    """
    import wandb

    values: dict[str, Any] = {"tables/test_cases": wandb.Table(dataframe=cases)}
    if logger.shows_patients:
        files = {case: folder.test_picture(case) for case in cases["case"]}
        drawn = {case: read_pixels(file) for case, file in files.items() if file.is_file()}
        if drawn:
            shape = common_shape(list(drawn.values()))
            values[WORST_CASES] = [wandb.Image(padded(pixels, shape), caption=case) for case, pixels in drawn.items()]
    logger.log_metrics(values)


def read_pixels(file: Path) -> NDArray[np.uint8]:
    """Return the RGB pixels of a picture, ``(height, width, 3)``."""
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def case_table(rows: pd.DataFrame) -> pd.DataFrame:
    """List the cases of a test, sorted by their mean Dice in ascending order.

    Args:
        rows: Long table of a test; see :func:`cm_lightning.metrics.case_rows`.

    Returns:
        Table with one row per case: ``case``, ``patient``, the mean over classes of each metric of the study, and
        ``dice_<class>``. Cases whose label and prediction contain no class are at the end.
    """
    study = [name for name, metric in METRICS.items() if metric.in_study]
    plain = rows[(rows["postprocessing"] == "none") & rows["metric"].isin(study)]
    scored = apply_empty_policy(plain, "worst")
    means = scored.pivot_table(index=["case", "patient"], columns="metric", values="value", dropna=False)
    dice = scored[scored["metric"] == "dice"].pivot_table(index=["case", "patient"], columns="class", values="value")
    dice = dice[[name for name in dict.fromkeys(rows["class"]) if name in dice]].add_prefix("dice_")
    all_cases = pd.MultiIndex.from_frame(rows[["case", "patient"]].drop_duplicates())
    table = means.reindex(columns=study).join(dice).reindex(all_cases)
    return table.sort_values("dice", kind="stable", na_position="last").reset_index()


def confusion_plot(counts: NDArray[np.int64], names: list[str]) -> Figure:
    """Draw a confusion matrix with the fraction of each label's voxels that are predicted as each class.

    Args:
        counts: Numbers of voxels, ``[label, prediction]``, ``(C, C)``.
        names: Names of all classes including the background.

    Returns:
        The figure.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.3 * len(names) + 2.4, 1.1 * len(names) + 1.8), layout="constrained")
    axes = figure.subplots()
    plot_confusion_matrix(torch.from_numpy(fractions), ax=axes, labels=list(names), cmap="Blues")
    axes.set_title("fraction of the voxels of each label", fontsize=11)
    axes.set_xlabel("predicted class", fontsize=11)
    axes.set_ylabel("label", fontsize=11)
    return figure
