"""Picture of augmented training cases."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import default_collate

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.drawing import CONFIDENCE, GREY, LargestLabelFrame, Panel, draw_panels, frame_spacing, save_figure
from cm_lightning.tasks import BaseTask


class AugmentationPicture(Callback):
    """Callback that draws training cases and augmented versions of them at the start of the training.

    It does nothing in a ``fast_dev_run``.

    Args:
        cases: Number of cases.
        versions: Number of augmented versions of each case.
    """

    def __init__(self, cases: int = 2, versions: int = 3) -> None:
        self.cases = cases
        self.versions = versions

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the cases, without changing the state of the random generators."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        if not (isinstance(data, UltrasoundDataModule) and isinstance(pl_module, BaseTask)):
            return
        rows = []
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            for index in range(min(self.cases, len(data.training_set))):
                sample = default_collate([data.training_set[index]])
                on_device = data.transfer_batch_to_device(sample, pl_module.device, 0)
                augmented = [data.augment(on_device) for _ in range(self.versions)]
                rows.append(self._panels(sample, augmented, maps=False))
                if "confidence" in augmented[0]:
                    rows.append(self._panels(sample, augmented, maps=True))
        figure = draw_panels(rows, pl_module.class_names, "training cases and augmented versions")
        save_figure(figure, fold_folder(trainer).pictures / "augmentation.png")

    def _panels(self, sample: Batch, augmented: list[Batch], maps: bool) -> list[Panel]:
        """Return panels of images or confidence maps; without a native map, the original is shown as an image."""
        panels = []
        for number, batch in enumerate([sample, *augmented]):
            key = "confidence" if maps and "confidence" in batch else "image"
            frame = LargestLabelFrame(sample["label"][0])
            title = f"augmented {number}" if number else f"{sample['case'][0]}: original"
            panels.append(
                Panel(
                    title,
                    frame(batch[key][0]),
                    frame_spacing(sample["spacing"][0]),
                    sample["unit"][0],
                    frame(batch["label"][0]),
                    scale=CONFIDENCE if key == "confidence" else GREY,
                )
            )
        return panels
