"""Writing of predictions as image files with the geometry of their input."""

import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.cases import Case
from cm_lightning.drawing import class_colour, colour_table, overlay
from cm_lightning.errors import InputError
from cm_lightning.io import Axes, ChannelWriter, FileImage, FrameWriter, is_picture, read_image, upright
from cm_lightning.io.slicer import segmentation_template
from cm_lightning.tasks import BaseTask, SegmentationTask
from cm_lightning.tasks.base import Prediction
from cm_lightning.tasks.native import NativeFrames
from cm_lightning.writing import replaced, write_table

SegmentationFormat = Literal["nii.gz", "seg.nrrd"]
MapType = Literal["float32", "uint16"]
# Maps of a prediction, of which those with a value per class have an additional last axis.
QUANTITIES = (
    "probabilities",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "variance",
    "votes",
    "confidence",
    "predicted_confidence",
)
PER_CLASS = ("probabilities", "variance", "votes")


class PredictionWriter(BasePredictionWriter):
    """Callback that writes the segmentation, class probabilities, entropy and confidence map of predicted cases.

    Segmentations contain the values of the label files. All predictions are NIfTI files with the geometry of the image
    file, except for the segmentations of 2D image files without physical coordinates (such as PNG), which are PNG
    files with a colour table, beside a picture ``<case>_overlay.png`` of the image with coloured classes.

    With MC dropout, expected entropy, mutual information, variance, votes and sampled segmentations are written as
    well, where ``sample01`` is the most plausible sample, and ``<case>_samples.csv`` contains the plausibilities.

    The display range in the header of a quantity is the same for all cases. Frames are written as they are predicted,
    so that the memory does not depend on the number of frames. Files appear once they are complete.

    Args:
        folder: Output folder; ``predictions`` in the folder of the run by default. Predictions with MC dropout, by an
            ensemble, or with mirroring are written to subfolders, so that they do not replace a plain prediction.
        maps: Whether to write class probabilities, entropies (in nats), mutual information, variance, votes and
            confidence maps in addition to the segmentation.
        format: Format of segmentations: NIfTI, or ``seg.nrrd`` for 3D Slicer, with names and colours of the classes.
        dtype: Type of the maps. ``uint16`` takes half the space: values are stored as fractions of the largest possible
            value, with errors of at most 8e-6 of it, and a slope in the header, by which readers multiply them.
    """

    def __init__(
        self,
        folder: Path | None = None,
        maps: bool = True,
        format: SegmentationFormat = "nii.gz",
        dtype: MapType = "float32",
    ) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.maps = maps
        self.format: SegmentationFormat = format
        self.dtype: MapType = dtype

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Prediction,
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the files of one case."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, UltrasoundDataModule)
        assert isinstance(pl_module, BaseTask)
        folder = (self.folder or fold_folder(trainer).predictions) / pl_module.prediction_kind
        case = next(case for case in data.cases_of("predict") if case.id == prediction.case)
        files = _CaseFiles(folder, case, data.template(case), data.axes, data.classes, self.format, self.dtype)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write(files, prediction, pl_module)
        except OSError as error:
            if isinstance(error, InputError):
                raise
            reason = error.strerror or error
            raise InputError(f"The prediction of {case.id} in {folder} cannot be written: {reason}.") from error

    def _write(self, files: "_CaseFiles", prediction: Prediction, task: BaseTask) -> None:
        with ExitStack() as stack:
            for number, part in enumerate(prediction.frames):
                if number == 0:
                    for name, values in part.maps.items():
                        if name in QUANTITIES and self.maps:
                            stack.enter_context(files.open_map(name, len(values), _largest(name, task)))
                        elif name == "samples":
                            for sample in range(len(values)):
                                stack.enter_context(files.open_labels(_sample_name(sample + 1)))
                    if prediction.postprocess is None:
                        stack.enter_context(files.open_labels("segmentation"))
                files.write(part, keep_segmentation=prediction.postprocess is not None)
        if prediction.postprocess is not None:
            files.write_segmentation(prediction.postprocess(files.kept_segmentation()))
        files.write_overlay()
        if prediction.plausibility is not None:
            files.sort_samples(prediction.plausibility())
        files.remove_others()


class _CaseFiles:
    """Files of the prediction of one case.

    Args:
        folder: Output folder.
        case: The case.
        template: Image file of the case.
        axes: Meaning of the axes of the file.
        classes: Value of every class in the label files.
        format: Format of segmentations.
        dtype: Type of the maps.
    """

    def __init__(
        self,
        folder: Path,
        case: Case,
        template: FileImage,
        axes: Axes,
        classes: dict[str, int],
        format: SegmentationFormat,
        dtype: MapType,
    ) -> None:
        self._map_type = np.dtype(dtype)
        self._folder = folder
        self._case = case
        self._template, self._axes = upright(template, axes)
        self._label_template, self._label_axes, self._label_suffix = self._template, self._axes, ".nii.gz"
        if format == "seg.nrrd":
            segments = {
                name: (value, class_colour(index)[:3]) for index, (name, value) in enumerate(classes.items(), 1)
            }
            self._label_template, self._label_axes = segmentation_template(self._template, self._axes, segments)
            self._label_suffix = ".seg.nrrd"
        elif is_picture(case.image) and template.array.ndim == 2:
            self._label_template, self._label_axes, self._label_suffix = template, axes, ".png"
        self._colours = colour_table(classes)
        values = np.array([0, *classes.values()])
        smallest = np.min_scalar_type(int(values.max())) if values.min() == 0 else np.dtype("int32")
        self._values = values.astype(smallest if smallest.itemsize < 4 else "int32")
        self._writers: dict[str, FrameWriter | ChannelWriter] = {}
        self._labels: dict[str, FrameWriter] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._written: set[Path] = set()
        self._kept: list[Tensor] = []

    def open_map(self, name: str, channels: int, largest: float) -> FrameWriter | ChannelWriter:
        path = self._path(name, ".nii.gz")
        arguments = (path, self._template, self._axes, self._map_type)
        options: dict[str, Any] = {"display_range": (0.0, largest), "largest": largest}
        writer = (
            ChannelWriter(*arguments, channels, **options) if name in PER_CLASS else FrameWriter(*arguments, **options)
        )
        self._writers[name] = writer
        return writer

    def open_labels(self, name: str) -> FrameWriter:
        path = self._path(name, self._label_suffix)
        writer = FrameWriter(
            path, self._label_template, self._label_axes, self._values.dtype, largest=None, colours=self._colours
        )
        self._labels[name] = writer
        return writer

    def write(self, part: NativeFrames, keep_segmentation: bool) -> None:
        """Write the next frames of all open files."""
        jobs: list[tuple[FrameWriter, NDArray[Any]]] = []
        for name, values in part.maps.items():
            frames = values.movedim(-1, 1).cpu().numpy()
            writer = self._writers.get(name)
            if name == "segmentation" and keep_segmentation:
                self._kept.append(values[0].cpu())
            elif name == "segmentation":
                jobs.append((self._labels[name], self._values[frames[0]]))
            elif name == "samples":
                names = [_sample_name(number) for number in range(1, len(frames) + 1)]
                jobs += [(self._labels[name], self._values[sample]) for name, sample in zip(names, frames, strict=True)]
            elif isinstance(writer, ChannelWriter):
                jobs += zip(writer.channels, frames, strict=True)
            elif writer is not None:
                jobs.append((writer, frames[0]))
        # Compression takes most of the time, and runs in parallel.
        list(self._pool.map(lambda job: job[0].write(job[1]), jobs))

    def kept_segmentation(self) -> Tensor:
        """Return the whole segmentation, ``(depth, lateral[, elevation])``."""
        segmentation = torch.cat(self._kept, dim=-1)
        self._kept = []
        return segmentation if self._template.array.ndim == 3 else segmentation[..., 0]

    def write_segmentation(self, segmentation: Tensor) -> None:
        """Write a whole segmentation, ``(depth, lateral[, elevation])``."""
        with self.open_labels("segmentation"):
            frames = segmentation if segmentation.ndim == 3 else segmentation[..., None]
            self._labels["segmentation"].write(self._values[frames.movedim(-1, 0).cpu().numpy()])

    def write_overlay(self) -> None:
        """Write a picture with the coloured classes, if the segmentation is a picture."""
        if self._label_suffix != ".png":
            return
        image = read_image(self._case.image).array.astype(np.float64)
        frame = (image if image.max() <= 255 else image * (255 / image.max())).astype(np.uint8)  # maybe of 16 bits
        segmentation = read_image(self._path("segmentation", ".png"), is_label=True).array
        classes = sum(index * (segmentation == value) for index, value in enumerate(self._values))
        with replaced(self._path("overlay", ".png")) as partial:
            Image.fromarray(overlay(frame, np.asarray(classes))).save(partial)

    def sort_samples(self, plausibility: Tensor) -> None:
        """Number the files of samples in the order of their plausibility, and write the plausibilities."""
        order = plausibility.argsort(descending=True).tolist()
        numbers = range(1, len(order) + 1)
        drawn = [self._path(_sample_name(index + 1), self._label_suffix) for index in order]
        waiting = [path.with_name(f".{path.name}") for path in drawn]
        for path, temporary in zip(drawn, waiting, strict=True):
            path.replace(temporary)
        for number, temporary in zip(numbers, waiting, strict=True):
            temporary.replace(self._path(_sample_name(number), self._label_suffix))
        table = pd.Series(plausibility[order].tolist(), pd.Index(numbers, name="sample"), name="plausibility")
        write_table(self._path("samples", ".csv"), table.reset_index())

    def remove_others(self) -> None:
        """Remove files of an earlier prediction of this case, which had other settings."""
        names = "|".join([*QUANTITIES, "segmentation", "overlay", "samples", r"sample\d+"])
        earlier = re.compile(rf"{re.escape(self._case.id)}_({names})(\.nii\.gz|\.png|\.seg\.nrrd|\.csv)")
        for path in self._folder.iterdir():
            if earlier.fullmatch(path.name) and path not in self._written:
                path.unlink()

    def _path(self, name: str, suffix: str) -> Path:
        path = self._folder / f"{self._case.id}_{name}{suffix}"
        self._written.add(path)
        return path


def _sample_name(number: int) -> str:
    return f"sample{number:02d}"


def _largest(name: str, task: BaseTask) -> float:
    """Return the largest possible value of a quantity, which viewers show as white."""
    match name:
        case "entropy" | "expected_entropy" | "mutual_information":
            return math.log(len(task.class_names) + 1)
        case "variance":
            return 0.25
        case "votes":
            assert isinstance(task, SegmentationTask)
            assert task.mc_dropout is not None
            return float(task.mc_dropout.samples)
        case _:
            return 1.0
