"""Position of a checkpoint in the file of logged metrics."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.tracking.loggers import ResumableCSVLogger

KEY = "metrics_file"


class LogPosition(Callback):
    """Callback that lets a resumed run continue ``metrics.csv`` exactly where the checkpoint was saved.

    Rows that were logged after the checkpoint are removed, because their steps are repeated. Lightning logs an epoch
    only after its last checkpoint, so the checkpoint contains that row.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save all rows, and store their number and the row of an epoch that has just ended."""
        logger = _csv_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        logger.save()
        progress: Any = trainer.fit_loop.epoch_progress.current
        pending: dict[str, Any] | None = None
        if progress.processed > progress.completed:
            logged = trainer._logger_connector.metrics["log"]
            step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
            pending = {key: float(value) for key, value in logged.items()}
            pending |= {"epoch": trainer.current_epoch, "step": step}
        checkpoint[KEY] = {"rows": logger.experiment.rows, "pending": pending}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remove the rows that were logged after the checkpoint, if it is one of this run."""
        logger, position = _csv_logger(trainer), checkpoint.get(KEY)
        if logger is None or position is None or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        if trainer.ckpt_path and Path(trainer.ckpt_path).resolve().is_relative_to(fold_folder(trainer).path.resolve()):
            logger.experiment.rewind(**position)


def _csv_logger(trainer: Trainer) -> ResumableCSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, ResumableCSVLogger)), None)
