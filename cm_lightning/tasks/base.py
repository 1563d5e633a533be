"""What all tasks share: the steps of training, validation, testing and prediction."""

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
    native_probabilities,
    native_segmentation,
    own_confidence,
    to_native,
)
from cm_lightning.tasks.postprocessing import LargestComponent
from cm_lightning.tasks.results import NativeCase, ResultCollector

Stage = Literal["fit", "validate", "test", "predict"]


class BaseTask(LightningModule):
    """A segmentation task: validates on the network's grid, tests in every case's own geometry.

    Args:
        classes: Value in the label files of every class; set from the data module.
        patch_size: Window of sliding inference; None runs whole images. Set from the data module.
        largest_component: In ``predict``, keep the largest connected component alone of the classes for which this
            raised the validation Dice of the epoch that the checkpoint is of; in ``test``, measure with and without.
        temperature_scaling: In every validation, fit the temperature of the logits; in ``predict``, divide by that of
            the checkpoint, which changes probabilities and no segmentation; in ``test``, measure calibration with and
            without.

    Attributes:
        class_names: Names of the classes 1, 2, ...; the background is not among them.
        window: Cuts and blends the windows of sliding inference; None where whole images are run.
        largest_component: Chooses the classes and applies the post-processing.
        temperature_scaling: Fits and holds the temperature.
        test_rows: Long table of the last test, the same on every process.
        test_levels: Counts of right and wrong voxels by level of confidence and by depth of the last test.
        test_calibration: Sums over voxels by their probability of every class of the last test.
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
        """Pairs of cases that training needs, a case and epoch; 0 for single cases."""
        return 0

    @abstractmethod
    def network_input(self, batch: Batch) -> Tensor:
        """Join the channels that the network sees.

        Args:
            batch: A batch of the data module.

        Returns:
            ``(B, channels, ...)``.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Compute the training loss.

        Args:
            outputs: Output of the network, ``(B, channels, ...)``.
            batch: The batch that the network saw.

        Returns:
            Scalar.
        """

    def needs_confidence(self, stage: Stage) -> bool:
        """Whether a stage cannot run without confidence maps."""
        return False

    def log_quality(self, outputs: Tensor, batch: Batch, stage: Literal["val", "test"]) -> None:
        """Log what a task measures beside its segmentation; the base logs nothing.

        Args:
            outputs: Output of the network.
            batch: The batch that the network saw.
            stage: First part of the keys.
        """

    def native_maps(self, outputs: Tensor, batch: Batch) -> Batch:
        """Give the maps of one case that are written beside its classes, at file resolution.

        Args:
            outputs: Output of the network, ``(1, channels, ...)``.
            batch: The batch that the network saw.

        Returns:
            Maps ``(depth, lateral[, elevation])`` by name: ``confidence`` where the batch has it.
        """
        return {"confidence": next(to_native(batch["confidence"], batch))} if "confidence" in batch else {}

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the data fit this task, before they are read.

        Args:
            data: The data.
            stage: What is about to run.

        Raises:
            InputError: Classes, dimensions or maps are not those that the task needs.
        """
        if list(data.classes) != self.class_names:
            raise InputError(
                f"The model was made for the classes {', '.join(self.class_names)}; data.classes are "
                f"{', '.join(data.classes)}. Expected the same, in the same order."
            )
        if data.confidence_mode == "none" and self.needs_confidence(stage):
            raise InputError(
                f"{stage} needs confidence maps (input mode 2ch, a loss with conf, or a confidence head); found "
                "data.confidence_mode none. Expected native or on_the_fly."
            )

    def setup(self, stage: str) -> None:
        """Check the data, where the command line has not already."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule):
            self.check_data(data, cast(Stage, stage))

    def outputs(self, batch: Batch) -> Tensor:
        """Run the network on whole images, by sliding windows where it was trained on patches.

        Args:
            batch: A batch of the data module.

        Returns:
            All output channels, ``(B, channels, ...)``; classes come first.
        """
        inputs = self.network_input(batch)
        outputs: Tensor = self(inputs) if self.window is None else self.window(inputs, self)
        return outputs

    def class_logits(self, outputs: Tensor) -> Tensor:
        """Pick the classes' channels, background first: ``(B, C, ...)``."""
        return outputs[:, : len(self.class_names) + 1]

    def infer(self, batch: Batch) -> Tensor:
        """Compute the logits of the classes on whole images, ``(B, C, ...)``."""
        return self.class_logits(self.outputs(batch))

    def on_train_epoch_start(self) -> None:
        """Log the learning rate, of the first optimiser where there are several."""
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("train/lr", torch.tensor(rate, dtype=torch.float32))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        loss = self.loss(self(self.network_input(batch)), batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["case"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Log the loss and keep what post-processing and calibration need of every case.

        Returns:
            ``prediction``, class indices on the network's grid, ``(B, ...)``.
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
        """Log the Dice of every class, mean over cases, and the temperature where one is fitted.

        The mean over classes leaves out a class that no case has.
        """
        dice = self.largest_component.end_validation()
        for name, value in zip(self.class_names, dice.float(), strict=True):
            self.log(f"val/dice/{name}", value, sync_dist=True)
        self.log(SCORE, dice.nanmean().float(), prog_bar=True, sync_dist=True)
        temperature = self.temperature_scaling.end_validation()
        if temperature is not None:
            self.log("val/temperature", torch.tensor(temperature, dtype=torch.float32), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the validation's results for post-processing and calibration."""
        self.largest_component.save(checkpoint)
        self.temperature_scaling.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the results of the validation at the checkpoint's epoch."""
        self.largest_component.load(checkpoint)
        self.temperature_scaling.load(checkpoint)

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Measure one case in its own geometry.

        Returns:
            ``prediction``, class indices at file resolution, without post-processing.
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
        self._results.add_levels(case, prediction, own_confidence(batch))
        return {"prediction": prediction}

    def on_test_epoch_end(self) -> None:
        """Gather the results of all processes and log the means over patients."""
        self.test_rows, self.test_levels, self.test_calibration = self._results.gather()
        for row in summarise(self.test_rows[self.test_rows["postprocessing"] == "none"]).to_dict("records"):
            mean = torch.tensor(row["mean"], dtype=torch.float32)
            self.log(f"test/{row['metric']}/{row['class']}", mean, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Predict one case at file resolution, with the post-processing and calibration that are enabled.

        Returns:
            ``case``, the class ``probabilities`` ``(C, depth, lateral[, elevation])``, the ``segmentation`` (class
            indices) and the maps beside them, on the same grid.
        """
        outputs = self.outputs(batch)
        probabilities = native_probabilities(self.class_logits(outputs), batch, self.temperature_scaling.divisor)
        segmentation = self.largest_component(probabilities.argmax(dim=0))
        prediction = {"case": batch["case"][0], "probabilities": probabilities, "segmentation": segmentation}
        return {**prediction, **self.native_maps(outputs, batch)}
