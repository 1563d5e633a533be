"""Pictures of predictive uncertainty by MC dropout."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import check_pictures, fold_folder, is_due
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import is_known
from cm_lightning.drawing import LargestLabelFrame, Panel, Scale, draw_panels, frame_spacing, save_figure
from cm_lightning.metrics.calibration import calibration_errors, calibration_rows
from cm_lightning.models import dropout_layers
from cm_lightning.tasks import SegmentationTask
from cm_lightning.tracking.publishing import make_picture, publish_pictures
from cm_lightning.uncertainty import MCDropout, SampledPrediction


class UncertaintyPictures(Callback):
    """Callback that draws the predictive uncertainty of validation cases by MC dropout.

    Each row shows a case: image with label, mean prediction, entropy of the mean, mutual information, and errors.
    The scale of the entropy is the same in all pictures, from 0 to the entropy of the uniform distribution. Loggers
    show the entropy as ``media/val/entropy``. The callback logs the mean entropy over insonified voxels
    (``mc/entropy/mean``) and over the voxels of each class (``mc/entropy/<class>``) in nats, and the ECE of the mean
    probabilities, averaged over classes (``mc/ece``). It does nothing for networks without dropout and in a
    ``fast_dev_run``.

    Args:
        every_n_epochs: Number of epochs between pictures; the last epoch is always drawn.
        cases: Number of cases; 0 for none.
        samples: Number of predictions with active dropout per case.
    """

    def __init__(self, every_n_epochs: int = 20, cases: int = 1, samples: int = 10) -> None:
        check_pictures("uncertainty", every_n_epochs, cases)
        MCDropout(samples)  # checks the number
        self.every_n_epochs = every_n_epochs
        self.cases = cases
        self.samples = samples
        self._rows: list[list[Panel]] = []
        self._values: list[dict[str, float]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the panels and values collected in the previous validation epoch."""
        self._rows, self._values = [], []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sample predictions of the first cases, if pictures are drawn in this epoch."""
        if not (isinstance(pl_module, SegmentationTask) and dropout_layers(pl_module.network)):
            return
        if not is_due(trainer, self.every_n_epochs):
            return
        # Whole volumes at the resolution of patches may not fit into memory during training.
        settings = MCDropout(self.samples, inference="whole" if pl_module.window is None else "windows")
        for index in range(min(len(batch["case"]), self.cases - len(self._rows))):
            case = {key: value[index : index + 1] for key, value in batch.items() if key != "partner"}
            sampled = pl_module.sample(case, settings)
            self._values.append(_values(case, sampled, pl_module.class_names))
            self._rows.append(self._row(case, sampled))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log entropies (nats) and ECE of MC dropout, averaged over the sampled cases."""
        for key, value in pd.DataFrame(self._values).mean().dropna().items():
            pl_module.log(str(key), value, rank_zero_only=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the sampled cases."""
        if not (self._rows and isinstance(pl_module, SegmentationTask)):
            return
        epoch = trainer.current_epoch
        title = f"MC dropout with {self.samples} samples, epoch {epoch}"
        figure = draw_panels(self._rows, pl_module.class_names, title)
        save_figure(figure, fold_folder(trainer).pictures / f"uncertainty_epoch{epoch:04d}.png")
        entropies = [make_picture(replace(row[2], title=row[0].title.removesuffix(": label"))) for row in self._rows]
        publish_pictures(trainer, "media/val/entropy", entropies, pl_module.class_names)
        self._rows = []

    def _row(self, batch: Batch, sampled: SampledPrediction) -> list[Panel]:
        label, spacing, unit = batch["label"][0], frame_spacing(batch["spacing"][0]), batch["unit"][0]
        frame = LargestLabelFrame(label)
        image, prediction = frame(batch["image"][0]), sampled.mean.argmax(dim=0, keepdim=True)
        scale = Scale("entropy [nats]", math.log(len(sampled.mean)), "magma")
        return [
            Panel(f"{frame.title(batch['case'][0])}: label", image, spacing, unit, frame(label)),
            Panel("mean prediction", image, spacing, unit, frame(prediction)),
            Panel("entropy", frame(sampled.entropy[None]), spacing, unit, scale=scale),
            Panel("mutual information", frame(sampled.mutual_information[None]), spacing, unit, scale=scale),
            Panel("errors", frame(((prediction != label) & is_known(label)).float()), spacing, unit),
        ]


def _values(batch: Batch, sampled: SampledPrediction, class_names: Sequence[str]) -> dict[str, float]:
    """Return the logged values of one case by key; NaN for classes that are not in its label."""
    label, domain = batch["label"][0, 0], batch["domain"][0, 0].bool()
    bins = pd.DataFrame(calibration_rows(sampled.mean[1:], label, class_names, domain & is_known(label)))
    values = {
        "mc/entropy/mean": sampled.entropy[domain].mean().item(),
        "mc/ece": float(calibration_errors(bins, ["class"])["ece"].mean()),
    }
    for index, name in enumerate(class_names, start=1):
        values[f"mc/entropy/{name}"] = sampled.entropy[label == index].mean().item()
    return values
