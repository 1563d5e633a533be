"""Pictures of validation cases during training."""

from dataclasses import replace
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cm_lightning.callbacks.trainer_state import check_pictures, fold_folder, is_due
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import known_only
from cm_lightning.drawing import (
    CONFIDENCE,
    ERRORS,
    LargestLabelFrame,
    Panel,
    case_panels,
    draw_panels,
    frame_spacing,
    save_figure,
)
from cm_lightning.tasks import BaseTask
from cm_lightning.tracking.publishing import Picture, make_picture, publish_pictures


class SegmentationPictures(Callback):
    """Callback that draws image, confidence map, label and prediction of validation cases.

    The first cases of the validation set are drawn in one PNG file. Loggers show them as ``media/val/overlay`` (with
    masks of label and prediction), ``media/val/confidence`` and ``media/val/error``. The callback does nothing in a
    ``fast_dev_run``.

    Args:
        every_n_epochs: Number of epochs between pictures; the last epoch is always drawn.
        cases: Number of cases.
    """

    def __init__(self, every_n_epochs: int = 10, cases: int = 8) -> None:
        check_pictures("pictures", every_n_epochs, cases)
        self.every_n_epochs = every_n_epochs
        self.cases = cases
        self._rows: list[list[Panel]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the panels collected in the previous validation epoch."""
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the first cases, if pictures are drawn in this epoch."""
        if not (
            isinstance(pl_module, BaseTask) and is_due(trainer, self.every_n_epochs) and len(self._rows) < self.cases
        ):
            return
        prediction = outputs["prediction"].unsqueeze(1)
        n_cases = min(len(batch["case"]), self.cases - len(self._rows))
        self._rows += [self._row(batch, prediction, index) for index in range(n_cases)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the collected cases."""
        if not (self._rows and trainer.is_global_zero and isinstance(pl_module, BaseTask)):
            return
        epoch = trainer.current_epoch
        figure = draw_panels(self._rows, pl_module.class_names, f"validation, epoch {epoch}")
        save_figure(figure, fold_folder(trainer).pictures / f"validation_epoch{epoch:04d}.png")
        pictures: dict[str, list[Picture]] = {}
        for row in self._rows:
            for name, picture in _media(row).items():
                pictures.setdefault(name, []).append(picture)
        for name, cases in pictures.items():
            publish_pictures(trainer, f"media/val/{name}", cases, pl_module.class_names)
        self._rows = []

    def _row(self, batch: Batch, prediction: Tensor, index: int) -> list[Panel]:
        label, segmentation = known_only(batch["label"][index], prediction[index])
        frame = LargestLabelFrame(label)
        return case_panels(
            frame.title(batch["case"][index]),
            frame(batch["image"][index]),
            frame(batch["confidence"][index]) if "confidence" in batch else None,
            frame(label),
            frame(segmentation),
            frame_spacing(batch["spacing"][index]),
            batch["unit"][index],
        )


def _media(row: list[Panel]) -> dict[str, Picture]:
    """Return the pictures of one case for loggers, by the last part of their key."""
    case, label, prediction = row[0].title.removesuffix(": image"), row[-2].label, row[-1].label
    assert label is not None
    assert prediction is not None
    pictures = {"overlay": make_picture(replace(row[0], title=case), label=label, prediction=prediction)}
    if row[1].scale == CONFIDENCE:
        pictures["confidence"] = make_picture(replace(row[1], title=case))
    error = np.where(prediction != label, 1.0, 0.0)
    pictures["error"] = make_picture(replace(row[0], title=f"{case}: errors", frame=error, scale=ERRORS))
    return pictures
