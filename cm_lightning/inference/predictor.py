"""Predictions of single images in Python, without a trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from cm_lightning.confidence import ProbeGeometry
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.cases import Case, CaseArrays, check_image
from cm_lightning.data.confidence_maps import LEVELS, frame_maps
from cm_lightning.data.frames import to_volume
from cm_lightning.data.map_sources import DepthRamp, MapProvider, solve_batch
from cm_lightning.data.network_frames import NetworkFrames
from cm_lightning.data.preparation import network_grid
from cm_lightning.data.reading import ReadCase, image_geometry
from cm_lightning.data.resampling import resample
from cm_lightning.errors import InputError
from cm_lightning.inference.ensemble import check_members
from cm_lightning.inference.loading import TrainedTask, load_task
from cm_lightning.io import Axes, FileImage
from cm_lightning.io.geometry import geometry_of_frames
from cm_lightning.tasks.base import MirroredAxis
from cm_lightning.uncertainty import MCDropout


@dataclass(frozen=True)
class PredictedImage:
    """Prediction of one image at its own resolution.

    Attributes:
        segmentation: Values of the classes in the label files, ``(depth, lateral[, elevation])``.
        probabilities: Probabilities of the background and of the classes in order, float32, ``(C, depth, lateral[,
            elevation])``.
        entropy: Entropy of the probabilities in nats, float32, ``(depth, lateral[, elevation])``.
        confidence: Confidence map that was given to the network, float32 from 0 to 1, ``(depth, lateral[,
            elevation])``; None for a network without a map.
        maps: Further maps by name, such as ``mutual_information`` with MC dropout, float32.
        classes: Value of every class in the segmentation.
    """

    segmentation: NDArray[np.integer[Any]]
    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float32]
    confidence: NDArray[np.float32] | None
    maps: dict[str, NDArray[np.float32]]
    classes: dict[str, int]


class Predictor:
    """Trained network, or ensemble of networks, that predicts images.

    Images are prepared as in the training: insonified region, confidence map, intensities and grid are those of the
    settings in the checkpoint.

    Args:
        members: Trained tasks, of which the first one determines classes and settings.
        device: Device of the networks.

    Example:
        >>> predictor = Predictor.from_checkpoint("outputs/demo/fold0/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> result = predictor(image, spacing=(0.1, 0.1, 0.2))  # doctest: +SKIP
        >>> result.segmentation.shape == image.shape  # doctest: +SKIP
        True
    """

    def __init__(self, members: Sequence[TrainedTask], device: torch.device | str = "cpu") -> None:
        check_members(members)
        self.settings = members[0].settings
        self.task = members[0].task.to(device)
        self.task.members = [member.task for member in members[1:]]
        needing = [member for member in members if member.task.needs_confidence("predict")]
        # A member that needs maps determines them, since others may have been trained without any.
        self._maps_from = needing[0].settings if needing else None
        if self._maps_from is not None and self._maps_from.confidence_source == "shuffled":
            raise InputError(
                f"{needing[0].path} was trained with maps of other patients (data.confidence_source shuffled), which a "
                "single image does not have; expected a network with its own map, a depth ramp or no map."
            )

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str | Sequence[Path | str],
        device: torch.device | str | None = None,
        mc_dropout: MCDropout | None = None,
        mirroring: Sequence[MirroredAxis] = (),
    ) -> Self:
        """Load a checkpoint, or several ones whose probabilities are averaged.

        Args:
            path: Checkpoint that ``fit`` wrote, or a list of them.
            device: Device of the networks; by default a GPU if there is one.
            mc_dropout: Settings of MC dropout; a single prediction without dropout by default.
            mirroring: Axes along which images are mirrored, for an average over all versions.

        Returns:
            The predictor.

        Raises:
            MissingInputError: A file does not exist.
            InputError: A file is not a checkpoint, or the checkpoints have different classes or settings.
        """
        paths = [path] if isinstance(path, str | Path) else list(path)
        if mc_dropout is not None and (len(paths) > 1 or mirroring):
            raise InputError("mc_dropout cannot be combined with several checkpoints or mirroring.")
        changes: dict[str, Any] = {"mc_dropout": mc_dropout, "mirroring": list(mirroring)}
        members = [load_task(Path(item), **(changes if index == 0 else {})) for index, item in enumerate(paths)]
        return cls(members, device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def __call__(
        self,
        image: NDArray[np.generic],
        spacing: Sequence[float] | None = None,
        axes: str | None = None,
        geometry: ProbeGeometry | None = None,
    ) -> PredictedImage:
        """Predict one image.

        Args:
            image: Grey values, ``(depth, lateral[, elevation])``, with the probe above the first row.
            spacing: Voxel size along these axes in mm. It is needed by networks with a common voxel size
                (``data.spacing``), and for the shape of fans.
            axes: Meaning of the axes of ``image`` and ``spacing`` if they are others, for example "lateral depth
                elevation". The results have the same axes.
            geometry: Insonified region; by default that of the settings of the training.

        Returns:
            The prediction.

        Raises:
            InputError: See :meth:`prepare`.
        """
        dims = self.task.hparams["spatial_dims"]
        order = Axes(axes or " ".join(("depth", "lateral", "elevation")[:dims]))
        batch = self.prepare(image, spacing, order.text, geometry)
        with torch.inference_mode():
            maps = self.task.predict_step(batch, 0).whole()
        arrays = {name: value.float().cpu().numpy() for name, value in maps.items() if name != "segmentation"}
        arrays = {
            name: value if name in ("probabilities", "variance", "votes") else value[0]
            for name, value in arrays.items()
        }
        arrays = {
            name: np.stack([order.to_file(channel) for channel in value]) if value.ndim > dims else order.to_file(value)
            for name, value in arrays.items()
        }
        classes = self.task.hparams["classes"]
        labels = np.array([0, *classes.values()])
        labels = labels.astype(np.min_scalar_type(int(labels.max())) if labels.min() == 0 else np.int32)
        return PredictedImage(
            segmentation=order.to_file(labels[maps["segmentation"][0].cpu().numpy()]),
            probabilities=arrays.pop("probabilities"),
            entropy=arrays.pop("entropy"),
            confidence=arrays.pop("confidence", None),
            maps=arrays,
            classes=dict(classes),
        )

    def prepare(
        self,
        image: NDArray[np.generic],
        spacing: Sequence[float] | None = None,
        axes: str | None = None,
        geometry: ProbeGeometry | None = None,
    ) -> Batch:
        """Prepare one image as input of the network, as the data module does.

        Args:
            image: Grey values; see :meth:`__call__`.
            spacing: Voxel size in mm.
            axes: Meaning of the axes of ``image`` and ``spacing``.
            geometry: Insonified region.

        Returns:
            Batch with ``image``, ``domain`` and, if the network needs it, ``confidence`` on its grid, or with
            ``frames`` for a network with sliding windows over volumes.

        Raises:
            InputError: The image has a wrong number of axes, is constant or not finite, or the spacing is missing or
                invalid.
        """
        dims = self.task.hparams["spatial_dims"]
        order = Axes(axes or " ".join(("depth", "lateral", "elevation")[:dims]))
        values = np.asarray(image)
        if values.ndim != dims or len(order.names) != dims:
            raise InputError(
                f"The image has the shape {values.shape} and the axes {order.text!r}; expected {dims} of both, as in "
                "the training."
            )
        values = order.from_file(values)
        check_image(values, "The image")
        return self._batch(values, self._spacing(spacing, order, dims), geometry)

    def _spacing(self, spacing: Sequence[float] | None, order: Axes, dims: int) -> tuple[float, ...]:
        if spacing is None:
            if self.settings.spacing is not None:
                raise InputError(
                    f"The network was trained with the voxel size {self.settings.spacing} mm (data.spacing); expected "
                    "the spacing of the image."
                )
            return (1.0,) * dims
        sizes = tuple(float(size) for size in spacing)
        if len(sizes) != dims or not all(np.isfinite(size) and size > 0 for size in sizes):
            raise InputError(f"spacing must be {dims} positive numbers in mm, found {list(spacing)}.")
        return tuple(sizes[axis] for axis in order.order)

    def _batch(self, image: NDArray[np.generic], spacing: tuple[float, ...], geometry: ProbeGeometry | None) -> Batch:
        """Prepare an image as the data module does."""
        settings, device = self.settings, self.task.device
        if geometry is None:
            shape = (image.shape[0], image.shape[1])
            if isinstance(settings.domain, Path):
                geometry = ProbeGeometry("shape", geometry_of_frames(settings.domain, Axes(settings.axes), shape))
            else:
                geometry = image_geometry(image, settings.domain, spacing)
        file = FileImage(image, spacing, np.eye(4))
        read = ReadCase(Case("image", "", Path("image")), CaseArrays(image, None, spacing, "mm", file), geometry)
        size = network_grid(image.shape, spacing, settings.spatial_size, settings.spacing)
        maps = self._maps_from
        on_the_fly = maps is not None and maps.confidence_mode == "on_the_fly"
        frames = NetworkFrames.from_case(read, size, boundary=on_the_fly)
        if maps is not None and on_the_fly:
            solver = maps.solver
            frames = frames.finished_by(lambda batch: {**batch, "confidence": solve_batch(solver, batch)})
        elif maps is not None:
            provider: MapProvider = DepthRamp()
            if maps.confidence_source == "solver":
                provider = _ComputedMap(self._native_map(image, geometry))
            frames = frames.with_maps({"confidence": provider})
        batch: Batch = {"case": ["image"], "native_shape": torch.tensor([image.shape])}
        if self.task.window is not None and image.ndim == 3:
            return {**batch, "frames": frames}
        return {**batch, **frames.batch(None, device)}

    def _native_map(self, image: NDArray[np.generic], geometry: ProbeGeometry) -> NDArray[np.uint16]:
        """Compute the confidence map at file resolution, with the precision of stored maps."""
        assert self._maps_from is not None
        solver = self._maps_from.solver
        if self.task.device.type == "cpu":
            solver = replace(solver, backend="cpu")
        parts = [
            np.round(part.astype(np.float64) * LEVELS).astype(np.uint16) for part in frame_maps(solver, image, geometry)
        ]
        stack = np.concatenate(parts)
        return stack[0] if image.ndim == 2 else to_volume(stack)


@dataclass(frozen=True)
class _ComputedMap:
    """Provider of a map at file resolution.

    Attributes:
        values: Confidence in units of ``1 / LEVELS``, ``(depth, lateral[, elevation])``.
    """

    values: NDArray[np.uint16]

    def __call__(
        self, case: Case, domain: torch.Tensor, size: tuple[int, ...], frames: range | None = None
    ) -> torch.Tensor:
        return resample(self.values, size, "linear", frames).div_(LEVELS).clamp_(0, 1)
