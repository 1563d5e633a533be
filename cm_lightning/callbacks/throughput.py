"""Training speed and GPU memory."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.data.augmentation import Batch


class Throughput(Callback):
    """Callback that logs the duration of epochs, the number of training cases per second and the peak GPU memory.

    These are ``time/epoch_s`` (including validation), ``time/cases_per_s`` (of all processes, including data loading)
    and ``memory/gpu_peak_gb`` (the maximum over all processes, only on GPUs).
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the start time of an epoch that is continued from a checkpoint within it."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the start time."""
        self._start = self._last = time.perf_counter()
        self._cases = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the cases of a batch."""
        self._last = time.perf_counter()
        self._cases += len(batch["case"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log duration, speed and memory."""
        training = max(self._last - self._start, 1e-9)
        rate = trainer.world_size * self._cases / training
        pl_module.log("time/epoch_s", time.perf_counter() - self._start, rank_zero_only=True)
        pl_module.log("time/cases_per_s", rate, rank_zero_only=True)
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
            pl_module.log("memory/gpu_peak_gb", peak, sync_dist=True, reduce_fx="max")
