"""Pictures of where a network hesitates."""

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.drawing import Panel, Scale, draw_panels
from cm_lightning.callbacks.pictures import frame_spacing, fullest_frame, is_due, run_folder, save_figure
from cm_lightning.data.augmentation import Batch
from cm_lightning.models import dropout_layers
from cm_lightning.tasks import SegmentationTask
from cm_lightning.uncertainty import MCDropout, SampledPrediction


class UncertaintyPictures(Callback):
    """Draw where a network hesitates in fixed validation cases, by MC dropout; nothing in a ``fast_dev_run``.

    A row a case: image with label, mean prediction, entropy of the mean, mutual information of the samples, and the
    pixels that are wrong. Entropies are on one scale in all pictures, from 0 to that of all classes being as likely.
    Their mean over insonified voxels is logged as ``mc/entropy/mean``. A network without dropout is left alone.

    Args:
        every_n_epochs: How often; the last epoch is always drawn.
        cases: How many cases; 0 for none.
        samples: Passes with dropout.
    """

    def __init__(self, every_n_epochs: int = 20, cases: int = 1, samples: int = 10) -> None:
        self.every_n_epochs = every_n_epochs
        self.cases = cases
        self.samples = samples
        self._rows: list[list[Panel]] = []
        self._entropies: list[float] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the cases of the last epoch."""
        self._rows, self._entropies = [], []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sample the first cases where a picture is due."""
        if not (isinstance(pl_module, SegmentationTask) and dropout_layers(pl_module.network)):
            return
        if not is_due(trainer, self.every_n_epochs):
            return
        # Whole volumes at the resolution of patches may not fit into memory beside training.
        settings = MCDropout(self.samples, inference="whole" if pl_module.window is None else "windows")
        for index in range(min(len(batch["case"]), self.cases - len(self._rows))):
            one = {key: value[index : index + 1] for key, value in batch.items() if key != "partner"}
            self._rows.append(self._row(one, pl_module.sample(one, settings)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean entropy of the cases that were drawn."""
        if self._entropies:
            mean = sum(self._entropies) / len(self._entropies)
            pl_module.log("mc/entropy/mean", mean, rank_zero_only=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cases that were kept."""
        if not (self._rows and isinstance(pl_module, SegmentationTask)):
            return
        epoch = trainer.current_epoch
        title = f"{self.samples} samples with dropout, epoch {epoch}"
        figure = draw_panels(self._rows, pl_module.class_names, title)
        save_figure(figure, run_folder(trainer) / "pictures" / f"uncertainty_epoch{epoch:04d}.png")
        self._rows = []

    def _row(self, batch: Batch, sampled: SampledPrediction) -> list[Panel]:
        label, spacing, unit = batch["label"][0], frame_spacing(batch["spacing"][0]), batch["unit"][0]
        self._entropies.append(sampled.entropy[batch["domain"][0, 0].bool()].mean().item())
        frame = fullest_frame(label)
        image, prediction = frame(batch["image"][0]), sampled.mean.argmax(dim=0, keepdim=True)
        scale = Scale("entropy [nats]", math.log(len(sampled.mean)), "magma")
        return [
            Panel(f"{batch['case'][0]}: label", image, spacing, unit, frame(label)),
            Panel("mean prediction", image, spacing, unit, frame(prediction)),
            Panel("entropy", frame(sampled.entropy[None]), spacing, unit, scale=scale),
            Panel("mutual information", frame(sampled.mutual_information[None]), spacing, unit, scale=scale),
            Panel("wrong", frame((prediction != label).float()), spacing, unit),
        ]
