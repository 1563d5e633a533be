"""Base class of all tasks, with the steps of training, validation, testing and prediction."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, Literal, cast

import pandas as pd
import torch
from monai.inferers import SlidingWindowInferer
from pytorch_lightning import LightningModule
from torch import Tensor

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import is_known
from cm_lightning.data.sides import check_mirroring
from cm_lightning.errors import InputError
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.segmentation import NSD_TOLERANCE
from cm_lightning.metrics.summary import summarise
from cm_lightning.tasks.calibration import TemperatureScaling
from cm_lightning.tasks.native import NativeFrames, native_frames
from cm_lightning.tasks.postprocessing import LargestComponent
from cm_lightning.tasks.results import NativeCase, ResultCollector
from cm_lightning.tasks.windows import Maps, slide_along_elevation
from cm_lightning.uncertainty import entropy

Stage = Literal["fit", "validate", "test", "predict"]
# Images are not mirrored vertically, because depth has a physical meaning.
MirroredAxis = Literal["lateral", "elevation"]
MIRRORED_DIMS: dict[MirroredAxis, int] = {"lateral": 3, "elevation": 4}
# Confidence maps of a batch that are measured or written at file resolution.
CONFIDENCE_KEYS = ("confidence", "image_confidence")


class Prediction:
    """Prediction of one case at file resolution, which is computed while its frames are read.

    Lightning passes it on unchanged, because it is not a dataclass.

    Args:
        case: Id of the case.
        shape: Shape of the file, ``(depth, lateral[, elevation])``.
        frames: Iterator over successive frames, which can be read once. Their maps are ``probabilities`` of all
            classes, ``segmentation`` (class indices, uint8), ``entropy`` in nats, and further maps of the task,
            ``(channels, depth, lateral, frames)`` each.
        postprocess: Post-processing of the whole segmentation, ``(depth, lateral[, elevation])``, or None.
        plausibility: Function that returns the plausibility of every sampled segmentation, ``(samples,)``, once all
            frames have been read; None without samples.
    """

    def __init__(
        self,
        case: str,
        shape: tuple[int, ...],
        frames: Iterator[NativeFrames],
        postprocess: Callable[[Tensor], Tensor] | None = None,
        plausibility: Callable[[], Tensor] | None = None,
    ) -> None:
        self.case = case
        self.shape = shape
        self.frames = frames
        self.postprocess = postprocess
        self.plausibility = plausibility

    def whole(self) -> Maps:
        """Read all frames.

        Returns:
            All maps, ``(channels, depth, lateral[, elevation])`` each, after post-processing.
        """
        parts = [part.maps for part in self.frames]
        maps = {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}
        if len(self.shape) == 2:
            maps = {name: values[..., 0] for name, values in maps.items()}
        if self.postprocess is not None:
            maps["segmentation"] = self.postprocess(maps["segmentation"][0])[None]
        return maps


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
        mirroring: Axes along which images are mirrored in ``test`` and ``predict``. The probabilities of all
            combinations are averaged. Confidence maps are mirrored with their images.
        nsd_tolerance: Tolerance of the normalised surface Dice in ``test``, in the unit of distances (mm, or pixels
            without a known size), for all classes or as {class: tolerance}; 2 for classes that are not named.

    Attributes:
        members: Further trained tasks, whose probabilities are averaged with those of this task in ``test`` and
            ``predict``.
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
        mirroring: Sequence[MirroredAxis] = (),
        nsd_tolerance: float | dict[str, float] = NSD_TOLERANCE,
    ) -> None:
        super().__init__()
        self.members: list[BaseTask] = []  # a list, so that their weights are not those of this module
        self.mirroring = tuple(mirroring)
        self.class_names = list(classes)
        self.window = None if patch_size is None else SlidingWindowInferer(patch_size, mode="gaussian", overlap=0.5)
        self.largest_component = LargestComponent(self.class_names, largest_component)
        self.temperature_scaling = TemperatureScaling(temperature_scaling)
        self.test_rows, self.test_levels, self.test_calibration = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
        self._results = ResultCollector(self.class_names, nsd_tolerance)

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

    @property
    def prediction_kind(self) -> str:
        """Name of the subfolder for predictions with the current settings; empty for a plain prediction."""
        kinds = {"ensemble": bool(self.members), "mirrored": bool(self.mirroring)}
        return "_".join(name for name, applies in kinds.items() if applies)

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

    def output_maps(self, outputs: Tensor) -> Maps:
        """Return the maps of an output of the network that are measured or written at file resolution.

        Args:
            outputs: Output of the network, ``(1, channels, ...)``.

        Returns:
            Maps by name, ``(channels, ...)`` each: the ``logits`` of the classes.
        """
        return {"logits": self.class_logits(outputs)[0].float()}

    def check_data(self, data: UltrasoundDataModule, stage: Stage) -> None:
        """Check that the settings of the data match this task, before any file is read.

        Args:
            data: The data module.
            stage: The stage that will run.

        Raises:
            InputError: Classes, dimensions or confidence maps do not match the task, or images are mirrored although
                classes differ by their side.
        """
        if list(data.classes) != self.class_names:
            raise InputError(
                f"The model was created for the classes {', '.join(self.class_names)}, but data.classes are "
                f"{', '.join(data.classes)}; expected the same classes in the same order."
            )
        if any(axis == "elevation" for axis in self.mirroring) and data.spatial_dims == 2:
            raise InputError("model.mirroring elevation needs volumes, but data.spatial_dims is 2; expected lateral.")
        mirrors = {"data.augmentation.flip": stage == "fit" and data.augmentation.flip > 0}
        mirrors["model.mirroring"] = stage in ("test", "predict") and "lateral" in self.mirroring
        check_mirroring(self.class_names, [name for name, applies in mirrors.items() if applies])
        needs_confidence = any(task.needs_confidence(stage) for task in (self, *self.members))
        if data.confidence_mode == "none" and needs_confidence:
            raise InputError(
                f"{stage} needs confidence maps (for input mode 2ch, a confidence loss, or a confidence head), but "
                "data.confidence_mode is none; expected native or on_the_fly."
            )

    def setup(self, stage: str) -> None:
        """Check the data, also without the command line."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, UltrasoundDataModule):
            self.check_data(data, cast(Stage, stage))

    def outputs(self, batch: Batch, mirrored: Sequence[int] = ()) -> Tensor:
        """Run the network on whole images, with sliding windows if it is trained on patches.

        Args:
            batch: A batch of the data module.
            mirrored: Dimensions of the input that are mirrored; the output is mirrored back.

        Returns:
            All output channels, ``(B, channels, ...)``, of which the first ones are the classes.
        """
        inputs = self.network_input(batch).flip(tuple(mirrored)) if mirrored else self.network_input(batch)
        outputs: Tensor = self(inputs) if self.window is None else self.window(inputs, self)
        return outputs.flip(tuple(mirrored)) if mirrored else outputs

    def averaged_outputs(self, batch: Batch) -> Tensor:
        """Average the outputs of all members of an ensemble and of all mirrored versions, for test and prediction.

        Args:
            batch: A batch of the data module.

        Returns:
            Output channels, ``(B, channels, ...)``. If there are several outputs, those of the classes are logarithms
            of mean probabilities, whose softmax are these probabilities.
        """
        dims = [MIRRORED_DIMS[axis] for axis in self.mirroring]
        versions = [chosen for number in range(len(dims) + 1) for chosen in combinations(dims, number)]
        tasks = [self, *(member.to(self.device) for member in self.members)]
        if len(tasks) * len(versions) == 1:
            return self.outputs(batch)
        classes = len(self.class_names) + 1
        total: Tensor | None = None
        for task in tasks:
            for mirrored in versions:
                outputs = task.outputs(batch, mirrored).float()
                outputs[:, :classes] = outputs[:, :classes].softmax(dim=1)
                total = outputs if total is None else total.add_(outputs)
        assert total is not None
        mean = total.div_(len(tasks) * len(versions))
        mean[:, :classes] = mean[:, :classes].clamp_min(torch.finfo(mean.dtype).tiny).log()
        return mean

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
        size = len(batch["case"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=size)
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
            label, domain = batch["label"][index, 0], batch["domain"][index, 0].bool()
            self.largest_component.add_case(case, prediction[index], label)
            self.temperature_scaling.add_case(case, logits[index], label, domain & is_known(label))
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

    def native_parts(
        self, batch: Batch, compute: Callable[[Batch], Maps], by_slabs: bool = True
    ) -> Iterator[NativeFrames]:
        """Compute maps of one case at file resolution, a few frames at a time.

        Args:
            batch: A batch of one case of the data module's test or prediction set.
            compute: Function from a batch of all frames, or of a slab as thick as a window, to maps on the network's
                grid, ``(channels, depth, lateral[, frames])`` each.
            by_slabs: Whether slabs may be computed instead of all frames.

        Returns:
            Iterator over the maps, with the confidence maps of the batch.
        """
        shape = [int(n) for n in batch["native_shape"][0]]

        def with_confidence(part: Batch) -> Maps:
            return {**{key: part[key][0] for key in CONFIDENCE_KEYS if key in part}, **compute(part)}

        frames = batch.get("frames")
        if frames is None or not by_slabs:
            whole = batch if frames is None else {**batch, **frames.batch(None, self.device)}
            elevation = whole["image"].shape[4] if whole["image"].ndim == 5 else 1
            return native_frames(iter([with_confidence(whole)]), elevation, shape)
        assert self.window is not None

        def slab(span: range) -> Maps:
            return with_confidence({**batch, **frames.batch(span, self.device)})

        return native_frames(slide_along_elevation(slab, frames.size, self.window), frames.size[2], shape)

    def test_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Measure one case at file resolution.

        Returns:
            Dictionary with the ``prediction``, class indices without post-processing, ``(depth, lateral[,
            elevation])``.
        """

        def compute(part: Batch) -> Maps:
            outputs = self.averaged_outputs(part)
            self.log_quality(outputs, part, "test")
            return self.output_maps(outputs)

        data = self.trainer.datamodule  # type: ignore[attr-defined]
        case = NativeCase.from_batch(batch, "patient" if data is None else data.grouping)
        prediction = torch.empty(case.label.shape, dtype=torch.uint8, device=case.label.device)
        for frames, maps in self.native_parts(batch, compute):
            part = case.part(frames)
            values = {name: value.reshape(-1, *part.label.shape) for name, value in maps.items()}
            segmentation = most_probable(values["logits"])
            prediction.reshape(*prediction.shape[:2], -1)[..., frames.start : frames.stop] = segmentation.reshape(
                *prediction.shape[:2], -1
            )
            self._results.add_probabilities(part, values["logits"].softmax(dim=0)[1:], "none")
            if self.temperature_scaling.enabled:
                scaled = (values["logits"] / self.temperature_scaling.divisor).softmax(dim=0)
                self._results.add_probabilities(part, scaled[1:], "temperature")
            # In a control experiment, the map of the image is not the second input channel.
            confidence = values.get("image_confidence", values.get("confidence"))
            self._results.add_levels(part, segmentation, None if confidence is None else confidence[0])
        segmentations = {"none": prediction}
        if self.largest_component.enabled:
            segmentations["largest component"] = self.largest_component(prediction)
        self._results.end_case(case, segmentations)
        return {"prediction": prediction}

    def on_test_epoch_end(self) -> None:
        """Gather the results of all processes, and log the means over patients."""
        self.test_rows, self.test_levels, self.test_calibration = self._results.gather()
        for row in summarise(self.test_rows[self.test_rows["postprocessing"] == "none"]).to_dict("records"):
            mean = torch.tensor(row["mean"], dtype=torch.float32)
            self.log(f"test/{row['metric']}/{row['class']}", mean, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Predict one case at file resolution, with post-processing and calibration if they are enabled.

        Returns:
            The prediction, which is computed while its frames are read.
        """
        parts = self.native_parts(batch, self.in_precision(lambda part: self.output_maps(self.averaged_outputs(part))))
        return self.prediction(batch, map(self._predicted, parts))

    def in_precision(self, compute: Callable[[Batch], Maps]) -> Callable[[Batch], Maps]:
        """Return a function that computes in the precision of the trainer, also after the end of ``predict_step``.

        Args:
            compute: Function from a batch to maps.

        Returns:
            The function; without a trainer, the same one.
        """
        if self._trainer is None:
            return compute
        context = self.trainer.precision_plugin.predict_step_context

        def computed(part: Batch) -> Maps:
            with context():
                return compute(part)

        return computed

    def prediction(
        self, batch: Batch, frames: Iterator[NativeFrames], plausibility: Callable[[], Tensor] | None = None
    ) -> Prediction:
        """Return the prediction of one case.

        Args:
            batch: A batch of this case.
            frames: Successive frames; see :class:`Prediction`.
            plausibility: Function that returns the plausibility of sampled segmentations.

        Returns:
            The prediction, with the configured post-processing.
        """
        postprocess = self.largest_component if self.largest_component.classes else None
        shape = tuple(int(n) for n in batch["native_shape"][0])
        return Prediction(batch["case"][0], shape, frames, postprocess, plausibility)

    def _predicted(self, part: NativeFrames) -> NativeFrames:
        """Compute probabilities, segmentation and entropy of some frames from their logits."""
        maps = {name: values for name, values in part.maps.items() if name not in ("logits", "image_confidence")}
        logits = part.maps["logits"]
        probabilities = (logits / self.temperature_scaling.divisor).softmax(dim=0)
        return NativeFrames(
            part.frames,
            {
                "probabilities": probabilities,
                "segmentation": most_probable(logits)[None],
                "entropy": entropy(probabilities, dim=0)[None],
                **maps,
            },
        )


def most_probable(values: Tensor) -> Tensor:
    """Return the class with the largest value.

    Args:
        values: Logits or probabilities of the classes, ``(C, ...)``.

    Returns:
        Class indices, uint8, ``(...)``; the lowest one of equal values.
    """
    # On a CPU, this is ten times as fast as argmax.
    return values.max(dim=0).indices.to(torch.uint8)
