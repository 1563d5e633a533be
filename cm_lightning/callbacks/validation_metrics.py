"""Metrics of the study during training."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import epoch_is_due
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import known_only
from cm_lightning.metrics.segmentation import study_metrics
from cm_lightning.tasks import BaseTask
from cm_lightning.tasks.distributed import gather_cases


class ValidationMetrics(Callback):
    """Callback that logs the metrics of the study in every validation.

    The keys are ``val/<metric>/<class>`` and ``val/<metric>/mean``. Metrics are computed on the network's grid and
    averaged over the cases for which they are defined, while ``test`` measures at file resolution. ``asd`` and ``hd``
    take much longer than the others and are not measured in every epoch. The task itself logs the Dice, which
    checkpoints monitor.

    Args:
        every_n_epochs: Number of epochs between measurements of distances; they are always measured in the last epoch.
    """

    def __init__(self, every_n_epochs: int = 10) -> None:
        self.every_n_epochs = every_n_epochs
        self._cases: dict[str, list[dict[str, float]]] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Compute the metrics of every case of a batch."""
        if not isinstance(pl_module, BaseTask) or trainer.sanity_checking:
            return
        with_distances = epoch_is_due(trainer, self.every_n_epochs)
        for index, case in enumerate(batch["case"]):
            spacing = batch["spacing"][index].tolist()[: batch["label"].ndim - 2] if with_distances else None
            label, prediction = known_only(batch["label"][index, 0], outputs["prediction"][index])
            self._cases[case] = study_metrics(prediction, label, len(pl_module.class_names) + 1, spacing)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log means over the cases of all processes; cases that the distributed sampler repeats are counted once."""
        if not isinstance(pl_module, BaseTask) or trainer.sanity_checking:
            return
        cases = gather_cases(self._cases)
        self._cases.clear()
        names = [name for name in next(iter(cases.values()))[0] if name != "dice"]
        for name in names:
            per_case = torch.tensor([[metrics[name] for metrics in classes] for classes in cases.values()])
            values = per_case.nanmean(dim=0)
            for class_name, value in zip(pl_module.class_names, values, strict=True):
                pl_module.log(f"val/{name}/{class_name}", value, rank_zero_only=True)
            pl_module.log(f"val/{name}/mean", values.nanmean(), rank_zero_only=True)
