"""Mean confidence, and computing time of confidence maps."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch


class ConfidenceCost(Callback):
    """Callback that logs the mean confidence and the computing time of confidence maps.

    ``cm/mean`` is the mean over the insonified voxels of the validation cases. ``cm/solve_ms_per_frame`` is the mean
    time per frame in milliseconds of the maps that this process has computed, on the fly or before training. It is
    not logged if all maps were in the cache.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._voxels = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the maps of a batch."""
        confidence = batch.get("image_confidence", batch.get("confidence"))
        if confidence is not None and not trainer.sanity_checking:
            inside = batch["domain"].bool()
            self._sum += float(confidence[inside].double().sum())
            self._voxels += int(inside.sum())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean confidence."""
        if self._voxels:
            pl_module.log("cm/mean", self._sum / self._voxels, sync_dist=True)
        self._sum, self._voxels = 0.0, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean computing time since the start of the run."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule) and data.solved_frames:
            # Only the first process computes maps before the training.
            milliseconds = 1000 * data.solve_seconds / data.solved_frames
            pl_module.log("cm/solve_ms_per_frame", milliseconds, rank_zero_only=True)
