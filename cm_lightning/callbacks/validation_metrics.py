"""The study's metrics during training."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import epoch_is_due
from cm_lightning.data.augmentation import Batch
from cm_lightning.metrics.segmentation import study_metrics
from cm_lightning.tasks import BaseTask
from cm_lightning.tasks.distributed import gather_cases


class ValidationMetrics(Callback):
    """Log the study's metrics in every validation, as ``val/<metric>/<class>`` and ``val/<metric>/mean``.

    They are taken on the network's grid, over the cases where they are defined; ``test`` measures at file resolution.
    ``asd`` and ``hd`` take far longer than the others and are measured now and then. (Dice is the task's own, as
    checkpoints go by it.)

    Args:
        every_n_epochs: How often distances are measured; in the last epoch always.
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
        """Measure the batch's cases."""
        if not isinstance(pl_module, BaseTask) or trainer.sanity_checking:
            return
        with_distances = epoch_is_due(trainer, self.every_n_epochs)
        for index, case in enumerate(batch["case"]):
            spacing = batch["spacing"][index].tolist()[: batch["label"].ndim - 2] if with_distances else None
            self._cases[case] = study_metrics(
                outputs["prediction"][index], batch["label"][index, 0], len(pl_module.class_names) + 1, spacing
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over the cases of all processes; a case that the sampler repeats counts once."""
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
