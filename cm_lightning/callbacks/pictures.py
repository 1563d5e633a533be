"""Pictures of what the network sees and says, written as PNG files beside the checkpoints."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import default_collate

from cm_lightning.callbacks.drawing import CONFIDENCE, GREY, WRONG, Frame, Panel, draw_panels
from cm_lightning.callbacks.publishing import Picture, make_picture, publish_pictures
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.evaluation.pooling import worst_case_picture
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.tasks import BaseTask


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
        save_figure(figure, run_folder(trainer) / "pictures" / f"validation_epoch{epoch:04d}.png")
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
        frame = fullest_frame(batch["label"][index])
        return _case_panels(
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
        frame = fullest_frame((prediction != label)[None])
        confidence = pl_module.own_confidence(batch)
        row = _case_panels(
            case,
            frame(next(pl_module.to_native(batch["image"], batch))[None]),
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
                save_figure(draw_panels([row], pl_module.class_names), worst_case_picture(run_folder(trainer), case))
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
        save_figure(figure, run_folder(trainer) / "pictures" / "augmentation.png")

    def _panels(self, sample: Batch, changed: list[Batch], maps: bool) -> list[Panel]:
        """Panels of images, or of maps; the original has a map only where it was computed natively."""
        panels = []
        for number, batch in enumerate([sample, *changed]):
            key = "confidence" if maps and "confidence" in batch else "image"
            frame = fullest_frame(sample["label"][0])
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


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether pictures are drawn in this validation: every so many epochs, in the last, and in ``validate``."""
    if trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
        return False
    return epoch_is_due(trainer, every_n_epochs)


def epoch_is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether something is done in this validation, in all processes alike."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.state.fn == "validate"


def run_folder(trainer: Trainer) -> Path:
    """Folder of the run on rank 0, without asking the other processes as ``trainer.log_dir`` would."""
    return Path(trainer.default_root_dir)


class fullest_frame:  # noqa: N801 (used like a function)
    """Pick the frame of a volume with the most labelled pixels; of a 2D image, the image.

    Args:
        label: ``(1, depth, lateral[, elevation])``.
    """

    def __init__(self, label: Tensor) -> None:
        self.index = None if label.ndim == 3 else int((label[0] > 0).sum(dim=(0, 1)).argmax())

    def __call__(self, value: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """Cut the frame from ``(1, depth, lateral[, elevation])``."""
        picked = value[0] if self.index is None else value[0, :, :, self.index]
        array: np.ndarray[Any, np.dtype[Any]] = picked.detach().cpu().numpy()
        return array


def _case_panels(
    case: str,
    image: Frame,
    confidence: Frame | None,
    label: Frame,
    prediction: Frame,
    spacing: tuple[float, float],
    unit: str,
    title: str = "prediction",
) -> list[Panel]:
    """Panels of a case: image, map where there is one, label, and prediction under a title."""
    panels = [Panel(f"{case}: image", image, spacing, unit)]
    if confidence is not None:
        panels.append(Panel("confidence map", confidence, spacing, unit, scale=CONFIDENCE))
    panels.append(Panel("label", image, spacing, unit, label))
    panels.append(Panel(title, image, spacing, unit, prediction))
    return panels


def frame_spacing(spacing: Tensor) -> tuple[float, float]:
    """Give the pixel size in depth and lateral."""
    depth, lateral = spacing[:2].tolist()
    return depth, lateral


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
