"""Base class of all tasks, with the steps of training, validation, testing and prediction."""

from abc import abstractmethod
from typing import Any, Literal, cast

import pandas as pd
import torch
from monai.inferers import SlidingWindowInferer
from pytorch_lightning import LightningModule
from torch import Tensor

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.errors import InputError
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.summary import summarise
from cm_lightning.tasks.calibration import TemperatureScaling
from cm_lightning.tasks.native import (
    foreground_probabilities,
    image_confidence,
    native_probabilities,
    native_segmentation,
    to_native,
)
from cm_lightning.tasks.postprocessing import LargestComponent
from cm_lightning.tasks.results import NativeCase, ResultCollector

Stage = Literal["fit", "validate", "test", "predict"]


class BaseTask(LightningModule):
    """Base class of segmentation tasks, which validate on the network's grid and test on the grid of the files.

    Args:
        classes: Value of every class in the label files; set from the data module.
        patch_size: Size of the sliding window in voxels; None predicts whole images. Set from the data module.
        largest_component: In ``predict``, keep only the largest connected component of those classes for which this
            increased the validation Dice in the epoch of the checkpoint. In ``test``, measure with and without this
            post-processing.
        temperature_scaling: Fit the temperature of the logits in every validation. In ``predict``, divide the logits by
            the temperature of the checkpoint, which changes probabilities but not the segmentation. In ``test``,
            measure calibration with and without it.

    Attributes:
        class_names: Names of the classes 1, 2, ..., without the background.
        window: Sliding-window inferer; None if whole images are predicted.
        largest_component: Post-processing by the largest connected component.
        temperature_scaling: Temperature scaling.
        test_rows: Long table of metrics of the last test, equal on all processes.
        test_levels: Counts of correct and wrong voxels of the last test, by level of confidence and by depth.
        test_calibration: Calibration sums of the last test, by bin of probability.
    """

    def __init__(
        self,
        classes: dict[str, int],
        patch_size: tuple[int, ...] | None = None,
        largest_component: bool = False,
        temperature_scaling: bool = False,
    ) -> None:
        super().__init__()
        self.class_names = list(classes)
        self.window = None if patch_size is None else SlidingWindowInferer(patch_size, mode="gaussian", overlap=0.5)
        self.largest_component = LargestComponent(self.class_names, largest_component)
        self.temperature_scaling = TemperatureScaling(temperature_scaling)
        self.test_rows, self.test_levels, self.test_calibration = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
        self._results = ResultCollector(self.class_names)

    @property
    def pairs_per_case(self) -> int:
        """Number of pairs per case and epoch that training needs; 0 for training on single cases."""
        return 0

    @abstractmethod
    def network_input(self, batch: Batch) -> Tensor:
        """Concatenate the input channels of the network.

        Args:
            batch: A batch of the data module.

        Returns:
            Input, ``(B, channels, ...)``.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the training loss.

        Args:
            outputs: Output of the network, ``(B, channels, ...)``.
            batch: The batch of this output.

        Returns:
            Loss, a scalar.
        """

    def needs_confidence(self, stage: Stage) -> bool:
        """Return whether a stage requires confidence maps."""
        return False

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Log further measures of a task, such as the quality of its registration. The base class logs nothing.

        Args:
            outputs: Output of the network, ``(B, channels, ...)``.
            batch: The batch of this output.
            stage: First part of the logged keys.
        """

    def native_maps(self, outputs: Tensor, batch: Batch) -> Batch:
        """Return further maps of one case that are written with a prediction, at file resolution.

        Args:
            outputs: Output of the network, ``(1, channels, ...)``.
            batch: The batch of this output.

        Returns:
            Maps by name, ``(depth, lateral[, elevation])`` each: ``confidence``, if the batch contains it.
        """
        return {"confidence": next(to_native(batch["confidence"], batch))} if "confidence" in batch else {}

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the settings of the data match this task, before any file is read.

        Args:
            data: The data module.
            stage: The stage that will run.

        Raises:
            InputError: Classes, dimensions or confidence maps do not match the task.
        """
        if list(data.classes) != self.class_names:
            raise InputError(
                f"The model was created for the classes {', '.join(self.class_names)}, but data.classes are "
                f"{', '.join(data.classes)}; expected the same classes in the same order."
            )
        if data.confidence_mode == "none" and self.needs_confidence(stage):
            raise InputError(
                f"{stage} needs confidence maps (for input mode 2ch, a confidence loss, or a confidence head), but "
                "data.confidence_mode is none; expected native or on_the_fly."
            )

    def setup(self, stage: str) -> None:
        """Check the data, also without the command line."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule):
            self.check_data(data, cast(Stage, stage))

    def outputs(self, batch: Batch) -> Tensor:
        """Run the network on whole images, with sliding windows if it is trained on patches.

        Args:
            batch: A batch of the data module.

        Returns:
            All output channels, ``(B, channels, ...)``, of which the first ones are the classes.
        """
        inputs = self.network_input(batch)
        outputs: Tensor = self(inputs) if self.window is None else self.window(inputs, self)
        return outputs

    def class_logits(self, outputs: Tensor) -> Tensor:
        """Return the channels of the classes including the background, ``(B, C, ...)``."""
        return outputs[:, : len(self.class_names) + 1]

    def infer(self, batch: Batch) -> Tensor:
        """Compute the logits of the classes on whole images, ``(B, C, ...)``."""
        return self.class_logits(self.outputs(batch))

    def on_train_epoch_start(self) -> None:
        """Log the learning rate of the first optimiser."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", torch.tensor(rate, dtype=torch.float32))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        loss = self.loss(self(self.network_input(batch)), batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["case"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Log the loss, and collect data of every case for post-processing and calibration.

        Returns:
            Dictionary with the ``prediction``, class indices on the network's grid, ``(B, ...)``.
        """
        outputs = self.outputs(batch)
        logits = self.class_logits(outputs)
        loss = self.loss(outputs, batch)
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(batch["case"]))
        self.log_quality(outputs, batch, "val")
        prediction = logits.argmax(dim=1)
        for index, case in enumerate(batch["case"]):
            label, domain = batch["label"][index, 0], batch["domain"][index, 0]
            self.largest_component.add_case(case, prediction[index], label)
            self.temperature_scaling.add_case(case, logits[index], label, domain)
        return {"prediction": prediction}

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice over cases of every class, its mean over classes, and the temperature if it is fitted.

        Classes that are in no case are left out of the mean over classes.
        """
        dice = self.largest_component.end_validation()
        for name, value in zip(self.class_names, dice.float(), strict=True):
            self.log(f"val/dice/{name}", value, sync_dist=True)
        self.log(SCORE, dice.nanmean().float(), prog_bar=True, sync_dist=True)
        temperature = self.temperature_scaling.end_validation()
        if temperature is not None:
            self.log("val/temperature", torch.tensor(temperature, dtype=torch.float32), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the settings of post-processing and calibration from the last validation."""
        self.largest_component.save(checkpoint)
        self.temperature_scaling.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the settings of post-processing and calibration from the validation of the checkpoint."""
        self.largest_component.load(checkpoint)
        self.temperature_scaling.load(checkpoint)

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Measure one case at file resolution.

        Returns:
            Dictionary with the ``prediction``, class indices without post-processing, ``(depth, lateral[,
            elevation])``.
        """
        outputs = self.outputs(batch)
        self.log_quality(outputs, batch, "test")
        logits = self.class_logits(outputs)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        case = NativeCase.from_batch(batch, "patient" if data is None else data.grouping)
        prediction = native_segmentation(logits, batch)
        errors = self._results.add_probabilities(case, foreground_probabilities(logits, batch), "none")
        self._results.add_segmentation(case, prediction, "none", errors)
        if self.temperature_scaling.enabled:
            scaled = foreground_probabilities(logits, batch, self.temperature_scaling.divisor)
            self._results.add_probabilities(case, scaled, "temperature")
        if self.largest_component.enabled:
            self._results.add_segmentation(case, self.largest_component(prediction), "largest component")
        self._results.add_levels(case, prediction, image_confidence(batch))
        return {"prediction": prediction}

    def on_test_epoch_end(self) -> None:
        """Gather the results of all processes, and log the means over patients."""
        self.test_rows, self.test_levels, self.test_calibration = self._results.gather()
        for row in summarise(self.test_rows[self.test_rows["postprocessing"] == "none"]).to_dict("records"):
            mean = torch.tensor(row["mean"], dtype=torch.float32)
            self.log(f"test/{row['metric']}/{row['class']}", mean, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Predict one case at file resolution, with post-processing and calibration if they are enabled.

        Returns:
            Dictionary with the ``case``, the class ``probabilities``, ``(C, depth, lateral[, elevation])``, the
            ``segmentation`` (class indices) and further maps, ``(depth, lateral[, elevation])`` each.
        """
        outputs = self.outputs(batch)
        probabilities = native_probabilities(self.class_logits(outputs), batch, self.temperature_scaling.divisor)
        segmentation = self.largest_component(probabilities.argmax(dim=0))
        prediction = {"case": batch["case"][0], "probabilities": probabilities, "segmentation": segmentation}
        return {**prediction, **self.native_maps(outputs, batch)}
