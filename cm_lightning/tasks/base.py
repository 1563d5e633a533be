"""What all tasks share: classes, results of validation and testing, and their gathering over processes."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from monai.inferers import SlidingWindowInferer
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.data.augmentation import Batch
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.segmentation import Row, dice_per_class
from cm_lightning.metrics.summary import summarise


class BaseTask(LightningModule):
    """A segmentation task: validates on the network's grid, tests in every case's own geometry.

    Args:
        classes: Value in the label files of every class; set from the data module.
        patch_size: Window of sliding inference; None runs whole images. Set from the data module.

    Attributes:
        test_rows: Long table of the last test, the same on every process.
    """

    def __init__(self, classes: dict[str, int], patch_size: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.class_names = list(classes)
        self.window = None if patch_size is None else SlidingWindowInferer(patch_size, mode="gaussian", overlap=0.5)
        self.test_rows = pd.DataFrame()
        self._rows: list[Row] = []
        self._validation_dice: dict[str, list[float]] = {}

    @abstractmethod
    def network_input(self, batch: Batch) -> Tensor:
        """Join the channels that the network sees.

        Args:
            batch: A batch of the data module.

        Returns:
            ``(B, channels, ...)``.
        """

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Compute the training loss.

        Args:
            logits: Output of the network, ``(B, C, ...)``.
            batch: The batch it is of.

        Returns:
            Scalar.
        """

    def infer(self, batch: Batch) -> Tensor:
        """Run the network on whole images, by sliding windows where it was trained on patches.

        Args:
            batch: A batch of the data module.

        Returns:
            Logits, ``(B, C, ...)``.
        """
        inputs = self.network_input(batch)
        logits: Tensor = self(inputs) if self.window is None else self.window(inputs, self)
        return logits

    def native_logits(self, batch: Batch) -> Iterator[Tensor]:
        """Predict one case and bring the logits to its file's grid, a class at a time: all at once can take 10 GB.

        Args:
            batch: A batch of one case.

        Yields:
            Logit of every class, background first, ``(depth, lateral[, elevation])`` at file resolution, float32.
        """
        shape = [int(n) for n in batch["native_shape"][0]]
        for logit in self.infer(batch)[0].float():
            yield resize_linearly(logit, shape)

    def native_segmentation(self, batch: Batch) -> Tensor:
        """Predict the most probable class of every voxel of one case's file.

        Args:
            batch: A batch of one case.

        Returns:
            Class indices, ``(depth, lateral[, elevation])``, uint8.
        """
        logits = self.native_logits(batch)
        highest = next(logits)
        segmentation = torch.zeros(highest.shape, dtype=torch.uint8, device=highest.device)
        for index, logit in enumerate(logits, start=1):
            segmentation[logit > highest] = index
            highest = torch.maximum(highest, logit)
        return segmentation

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        loss = self.loss(self(self.network_input(batch)), batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["case"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and keep the Dice of every case."""
        logits = self.infer(batch)
        loss = self.loss(logits, batch)
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(batch["case"]))
        prediction = logits.argmax(dim=1)
        for index, case in enumerate(batch["case"]):
            dice = dice_per_class(prediction[index], batch["label"][index, 0], logits.shape[1])
            self._validation_dice[case] = dice

    def on_validation_epoch_end(self) -> None:
        """Log the mean over cases of every class's Dice; a class that no case has is left out."""
        gathered = gather_objects(list(self._validation_dice.items()))
        self._validation_dice.clear()
        # The sampler of several processes repeats cases to fill the last batch: one value a case.
        table = pd.DataFrame(dict(gathered).values(), columns=self.class_names, dtype=float)
        means = table.mean()
        for name, value in means.items():
            self.log(f"val/dice/{name}", torch.tensor(value, dtype=torch.float32), sync_dist=True)
        self.log("val/dice/mean", torch.tensor(means.mean(), dtype=torch.float32), prog_bar=True, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one case in its own geometry."""
        prediction = self.native_segmentation(batch)
        grouping = self.trainer.datamodule.grouping if self.trainer.datamodule is not None else "patient"  # type: ignore[attr-defined]
        self._rows += case_rows(
            prediction,
            batch["native_label"][0, 0],
            self.class_names,
            batch["native_spacing"][0].tolist(),
            case=batch["case"][0],
            patient=batch["patient"][0],
            grouping=grouping,
            unit=batch["unit"][0],
        )

    def on_test_epoch_end(self) -> None:
        """Gather the rows of all processes and log the means over patients."""
        rows = pd.DataFrame(gather_objects(self._rows))
        self._rows = []
        self.test_rows = rows.drop_duplicates(["case", "class", "metric"]).reset_index(drop=True)
        for row in summarise(self.test_rows).itertuples():
            self.log(f"test/{row.metric}/{row[1]}", torch.tensor(row.mean, dtype=torch.float32), sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Predict one case at file resolution.

        Returns:
            ``case``, the class ``probabilities`` ``(C, depth, lateral[, elevation])`` and, where the batch has one, the
            ``confidence`` map on the same grid.
        """
        probabilities = torch.stack(list(self.native_logits(batch))).softmax(dim=0)
        result: Batch = {"case": batch["case"][0], "probabilities": probabilities}
        if "confidence" in batch:
            result["confidence"] = resize_linearly(batch["confidence"][0, 0].float(), probabilities.shape[1:])
        return result


def resize_linearly(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize ``(depth, lateral[, elevation])`` over the same extent."""
    if list(image.shape) == list(shape):
        return image
    mode = "bilinear" if image.ndim == 2 else "trilinear"
    return F.interpolate(image[None, None], size=tuple(shape), mode=mode, align_corners=False)[0, 0]


def gather_objects(items: list[Any]) -> list[Any]:
    """Join lists of all processes, in the order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(items)
    parts: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
