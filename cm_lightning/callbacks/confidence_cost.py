"""What confidence maps cost when they are computed on the fly."""

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.data import UltrasoundDataModule


class ConfidenceCost(Callback):
    """Log the mean time of a map that was computed on the fly, as ``cm/solve_ms_per_frame``."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the mean since the run's start."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule) and data.solved_frames:
            pl_module.log("cm/solve_ms_per_frame", 1000 * data.solve_seconds / data.solved_frames, sync_dist=True)
