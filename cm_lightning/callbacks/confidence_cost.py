"""How confident the maps are, and what they cost."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch


class ConfidenceCost(Callback):
    """Log the mean of the validation's maps as ``cm/mean``, and the mean time of a map as ``cm/solve_ms_per_frame``.

    The mean is over insonified voxels. The time is of the maps that this process has computed itself, on the fly or
    before training; where all came from the cache, there is none.
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
        """Add the batch's maps."""
        confidence = batch.get("own_confidence", batch.get("confidence"))
        if confidence is not None and not trainer.sanity_checking:
            inside = batch["domain"].bool()
            self._sum += float(confidence[inside].double().sum())
            self._voxels += int(inside.sum())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean."""
        if self._voxels:
            pl_module.log("cm/mean", self._sum / self._voxels, sync_dist=True)
        self._sum, self._voxels = 0.0, 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean time since the run's start."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule) and data.solved_frames:
            # Only the first process computes maps before training.
            milliseconds = 1000 * data.solve_seconds / data.solved_frames
            pl_module.log("cm/solve_ms_per_frame", milliseconds, rank_zero_only=True)
