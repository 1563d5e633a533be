"""Position of a checkpoint in the file of logged metrics."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import fold_folder, is_inside
from cm_lightning.data.augmentation import Batch
from cm_lightning.tracking.loggers import ResumableCSVLogger
from cm_lightning.tracking.metrics_file import AppendingWriter

KEY = "metrics_file"
RUN_KEY = "metrics_of_run"
STATE_KEY = "logged_metrics"


class LogPosition(Callback):
    """Callback that lets a resumed run continue ``metrics.csv`` exactly where the checkpoint was saved.

    Rows that were logged after the checkpoint are removed, because their steps are repeated. Lightning logs an epoch
    only after its last checkpoint, so the checkpoint contains that row. A checkpoint within an epoch contains the sums
    of its steps and the results of the last validation.
    """

    def __init__(self) -> None:
        self._sums: list[dict[str, Any]] = []
        self._validation: dict[str, float] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save all rows, and store their number and the row of an epoch that has just ended."""
        progress: Any = trainer.fit_loop.epoch_progress.current
        within_epoch = progress.processed == progress.completed
        sums = _partial_sums(trainer) if within_epoch else []
        validation = {key: float(value) for key, value in trainer.callback_metrics.items()} if within_epoch else {}
        checkpoint[STATE_KEY] = {"sums": sums, "validation": validation}
        logger = _csv_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        logger.save()
        pending: dict[str, Any] | None = None
        if not within_epoch:
            logged = trainer._logger_connector.metrics["log"]
            step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
            pending = {key: float(value) for key, value in logged.items()}
            pending |= {"epoch": trainer.current_epoch, "step": step}
        writer = logger.experiment
        checkpoint[KEY] = {"rows": writer.rows, "pending": pending}
        checkpoint[RUN_KEY] = _run(trainer, writer, writer.rows)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remove the rows that were logged after the checkpoint, if it is one of this run."""
        if trainer.state.fn == "fit":
            state = checkpoint.get(STATE_KEY, {"sums": [], "validation": {}})
            self._sums, self._validation = state["sums"], state["validation"]
        logger, position = _csv_logger(trainer), checkpoint.get(KEY)
        if logger is None or position is None or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        writer = logger.experiment
        is_of_run = is_inside(trainer.ckpt_path, fold_folder(trainer).path)
        # Checkpoints of further callbacks may lie in other folders.
        if is_of_run or checkpoint.get(RUN_KEY) == _run(trainer, writer, position["rows"]):
            writer.rewind(**position)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the means of an epoch whose steps are finished, and restore the results of the last validation."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._restore_sums(trainer, pl_module)
        trainer._logger_connector._callback_metrics.update(
            {key: torch.tensor(value) for key, value in self._validation.items()}
        )
        self._validation = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Continue the means of an epoch; Lightning resets them at the first step after resuming."""
        self._restore_sums(trainer, pl_module)

    def _restore_sums(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for entry in self._sums:
            trainer.fit_loop.epoch_loop._results.log(
                entry["hook"],
                entry["name"],
                torch.tensor(entry["mean"], device=pl_module.device),
                batch_size=entry["number"],
                prog_bar=entry["prog_bar"],
                sync_dist=entry["sync_dist"],
                sync_dist_fn=trainer.strategy.reduce,
                rank_zero_only=entry["rank_zero_only"],
            )
        self._sums = []


def _partial_sums(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the means that are being accumulated over the steps of an epoch, of all processes together."""

    def over_processes(metric: Any) -> float:
        sums = torch.stack([metric.value.detach().double(), metric.cumulated_batch_size.detach().double()])
        total = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum")
        return float(total[0] / total[1])

    return [
        {
            "hook": metric.meta.fx,
            "name": metric.meta.name,
            "prog_bar": metric.meta.prog_bar,
            "sync_dist": metric.meta.sync.should,
            "rank_zero_only": metric.meta.sync.rank_zero_only,
            "mean": over_processes(metric),
            "number": int(metric.cumulated_batch_size),
        }
        for metric in trainer.fit_loop.epoch_loop._results.values()
        if metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction and metric.cumulated_batch_size
    ]


def _run(trainer: Trainer, writer: AppendingWriter, rows: int) -> dict[str, str]:
    """Return what identifies the run of a checkpoint: its folder, and the rows that were logged before."""
    return {"folder": str(fold_folder(trainer).path.resolve()), "digest": writer.digest(rows)}


def _csv_logger(trainer: Trainer) -> ResumableCSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, ResumableCSVLogger)), None)
