"""Pictures of what the network sees and says, written as PNG files beside the checkpoints."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import default_collate

from cm_lightning.callbacks.trainer_state import fold_folder, is_due
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.drawing import (
    CONFIDENCE,
    GREY,
    WRONG,
    FullestFrame,
    Panel,
    case_panels,
    draw_panels,
    frame_spacing,
    save_figure,
)
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.tasks import BaseTask
from cm_lightning.tasks.native import own_confidence, to_native
from cm_lightning.tracking.publishing import Picture, make_picture, publish_pictures


class SegmentationPictures(Callback):
    """Draw image, confidence map, label and prediction of fixed validation cases; nothing in a ``fast_dev_run``.

    The first cases of the validation set, always the same, as one PNG file. Loggers that show pictures have them as
    ``media/val/overlay`` (label and prediction as masks), ``media/val/confidence`` and ``media/val/error``.

    Args:
        every_n_epochs: How often; the last epoch is always drawn.
        cases: How many cases.
    """

    def __init__(self, every_n_epochs: int = 10, cases: int = 8) -> None:
        self.every_n_epochs = every_n_epochs
        self.cases = cases
        self._rows: list[list[Panel]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the cases of the last epoch."""
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
        """Keep the first cases where a picture is due."""
        if not (
            isinstance(pl_module, BaseTask) and is_due(trainer, self.every_n_epochs) and len(self._rows) < self.cases
        ):
            return
        prediction = outputs["prediction"].unsqueeze(1)
        taken = min(len(batch["case"]), self.cases - len(self._rows))
        self._rows += [self._row(batch, prediction, index) for index in range(taken)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cases that were kept."""
        if not (self._rows and trainer.is_global_zero and isinstance(pl_module, BaseTask)):
            return
        epoch = trainer.current_epoch
        figure = draw_panels(self._rows, pl_module.class_names, f"validation, epoch {epoch}")
        save_figure(figure, fold_folder(trainer).pictures / f"validation_epoch{epoch:04d}.png")
        shown: dict[str, list[Picture]] = {}
        for row in self._rows:
            case, label, prediction = row[0].title.removesuffix(": image"), row[-2].label, row[-1].label
            assert label is not None
            assert prediction is not None
            overlay = replace(row[0], title=case)
            wrong = np.where(prediction != label, 1.0, 0.0)
            error = replace(row[0], title=f"{case}: wrong", frame=wrong, scale=WRONG)
            pictures = {"overlay": make_picture(overlay, label=label, prediction=prediction)}
            pictures |= {"confidence": make_picture(replace(row[1], title=case))} if row[1].scale == CONFIDENCE else {}
            pictures |= {"error": make_picture(error)}
            for name, picture in pictures.items():
                shown.setdefault(name, []).append(picture)
        for name, of_cases in shown.items():
            publish_pictures(trainer, f"media/val/{name}", of_cases, pl_module.class_names)
        self._rows = []

    def _row(self, batch: Batch, prediction: Tensor, index: int) -> list[Panel]:
        frame = FullestFrame(batch["label"][index])
        return case_panels(
            batch["case"][index],
            frame(batch["image"][index]),
            frame(batch["confidence"][index]) if "confidence" in batch else None,
            frame(batch["label"][index]),
            frame(prediction[index]),
            frame_spacing(batch["spacing"][index]),
            batch["unit"][index],
        )


class WorstCasePictures(Callback):
    """Draw the worst cases of a test, each in the frame that has most wrong pixels; nothing in a ``fast_dev_run``.

    Args:
        cases: How many, by the mean Dice of the classes that a case has or was given; in every process of its own.
    """

    def __init__(self, cases: int = 3) -> None:
        self.cases = cases
        self._worst: list[tuple[float, str, list[Panel]]] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a case that is among the worst so far."""
        if not (isinstance(pl_module, BaseTask) and outputs and self.cases):
            return
        prediction, label = outputs["prediction"], batch["native_label"][0, 0]
        dice = torch.tensor(dice_per_class(prediction, label, len(pl_module.class_names) + 1)).nanmean().item()
        if math.isnan(dice) or (len(self._worst) == self.cases and dice >= self._worst[-1][0]):
            return
        case = batch["case"][0]
        frame = FullestFrame((prediction != label)[None])
        confidence = own_confidence(batch)
        row = case_panels(
            case,
            frame(next(to_native(batch["image"], batch))[None]),
            None if confidence is None else frame(confidence[None]),
            frame(label[None]),
            frame(prediction[None]),
            frame_spacing(batch["native_spacing"][0]),
            batch["unit"][0],
            f"prediction, Dice {dice:.2f}",
        )
        self._worst = sorted([*self._worst, (dice, case, row)], key=lambda kept: kept[:2])[: self.cases]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cases that were kept."""
        if isinstance(pl_module, BaseTask) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for _, case, row in self._worst:
                save_figure(draw_panels([row], pl_module.class_names), fold_folder(trainer).test_picture(case))
        self._worst = []


class AugmentationPicture(Callback):
    """Draw training cases beside augmented versions, once, before the first step; nothing in a ``fast_dev_run``.

    Args:
        cases: How many cases.
        versions: How many augmented versions of each.
    """

    def __init__(self, cases: int = 2, versions: int = 3) -> None:
        self.cases = cases
        self.versions = versions

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, leaving the random state as it was."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        if not (isinstance(data, UltrasoundDataModule) and isinstance(pl_module, BaseTask)):
            return
        rows = []
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            for index in range(min(self.cases, len(data.training_set))):
                sample = default_collate([data.training_set[index]])
                on_device = data.transfer_batch_to_device(sample, pl_module.device, 0)
                changed = [data.augment(on_device) for _ in range(self.versions)]
                rows.append(self._panels(sample, changed, maps=False))
                if "confidence" in changed[0]:
                    rows.append(self._panels(sample, changed, maps=True))
        figure = draw_panels(rows, pl_module.class_names, "training cases, and what augmentation makes of them")
        save_figure(figure, fold_folder(trainer).pictures / "augmentation.png")

    def _panels(self, sample: Batch, changed: list[Batch], maps: bool) -> list[Panel]:
        """Panels of images, or of maps; the original has a map only where it was computed natively."""
        panels = []
        for number, batch in enumerate([sample, *changed]):
            key = "confidence" if maps and "confidence" in batch else "image"
            frame = FullestFrame(sample["label"][0])
            title = f"augmented {number}" if number else f"{sample['case'][0]}: original"
            panels.append(
                Panel(
                    title,
                    frame(batch[key][0]),
                    frame_spacing(sample["spacing"][0]),
                    sample["unit"][0],
                    frame(batch["label"][0]),
                    scale=CONFIDENCE if key == "confidence" else GREY,
                )
            )
        return panels
