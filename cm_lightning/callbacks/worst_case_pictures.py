"""Pictures of the worst test cases."""

import math
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import known_only
from cm_lightning.drawing import LargestLabelFrame, Panel, case_panels, draw_panels, frame_spacing, save_figure
from cm_lightning.metrics.segmentation import dice_per_class
from cm_lightning.tasks import BaseTask
from cm_lightning.tasks.distributed import gather_objects
from cm_lightning.tasks.native import image_confidence, read_frame


class WorstCasePictures(Callback):
    """Callback that draws the worst test cases, each in the frame with the most wrong pixels.

    It does nothing in a ``fast_dev_run``.

    Args:
        cases: Number of cases, chosen by the mean Dice over classes.
    """

    def __init__(self, cases: int = 3) -> None:
        self.cases = cases
        self._worst: list[tuple[float, str, list[Panel]]] = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a case that is among the worst so far."""
        if not (isinstance(pl_module, BaseTask) and outputs and self.cases):
            return
        label, prediction = known_only(batch["native_label"][0, 0], outputs["prediction"])
        dice = torch.tensor(dice_per_class(prediction, label, len(pl_module.class_names) + 1)).nanmean().item()
        if math.isnan(dice) or (len(self._worst) == self.cases and dice >= self._worst[-1][0]):
            return
        case = batch["case"][0]
        frame = LargestLabelFrame((prediction != label)[None])
        number = frame.index or 0
        image = read_frame(batch, "image", number)
        assert image is not None
        confidence = image_confidence(batch, number)
        row = case_panels(
            frame.title(case),
            image.cpu().numpy(),
            None if confidence is None else confidence.cpu().numpy(),
            frame(label[None]),
            frame(prediction[None]),
            frame_spacing(batch["native_spacing"][0]),
            batch["unit"][0],
            f"prediction, Dice {dice:.2f}",
        )
        self._worst = sorted([*self._worst, (dice, case, row)], key=lambda item: item[:2])[: self.cases]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the worst cases of all processes; cases that the distributed sampler repeats are drawn once."""
        cases = {case: (dice, case, row) for dice, case, row in gather_objects(self._worst)}
        self._worst = sorted(cases.values(), key=lambda item: item[:2])[: self.cases]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the collected cases."""
        if isinstance(pl_module, BaseTask) and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for _, case, row in self._worst:
                save_figure(draw_panels([row], pl_module.class_names), fold_folder(trainer).test_picture(case))
        self._worst = []
