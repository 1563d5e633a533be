"""Preparation of cases as input of the network."""

from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor

from cm_lightning.data.cases import Case
from cm_lightning.data.map_sources import MapProvider
from cm_lightning.data.network_frames import NetworkFrames, Sample
from cm_lightning.data.reading import CaseReader, ReadCase
from cm_lightning.data.resampling import resample


class CaseResampler:
    """Resampling of cases to the grid of the network.

    Args:
        reader: Reader of the cases.
        size: Size in voxels to which whole images are resized, or None.
        spacing: Common voxel size (depth, lateral, elevation) in mm to which images are resampled, or None.
        boundary: Whether to add the source and sink of the random walk, for maps that are computed on this grid.
    """

    def __init__(
        self,
        reader: CaseReader,
        size: tuple[int, ...] | None = None,
        spacing: tuple[float, ...] | None = None,
        boundary: bool = False,
    ) -> None:
        self.reader = reader
        self.size = size
        self.spacing = spacing
        self.boundary = boundary
        self._resampled: dict[str, Sample] = {}

    def __call__(self, case: Case) -> Sample:
        """Read and resample a case, if it was not resampled before.

        Args:
            case: The case.

        Returns:
            Entries of :class:`PrepareCase` except for confidence maps.
        """
        resampled = self._resampled.pop(case.id, None)
        return self.resample(self.reader.read(case)) if resampled is None else resampled

    def resample_now(self, read: ReadCase) -> None:
        """Resample a case while it is in memory, for the next call with this case.

        Args:
            read: The case with its arrays.
        """
        self._resampled[read.case.id] = self.resample(read)

    def resample(self, read: ReadCase) -> Sample:
        """Resample a case that has been read.

        Args:
            read: The case with its arrays.

        Returns:
            Entries of :class:`PrepareCase` except for confidence maps.
        """
        frames = self.frames(read)
        return {**frames(), **self.description(read, frames.size), **self.label(read, frames.size)}

    def frames(self, read: ReadCase) -> NetworkFrames:
        """Return the frames of a case on the network's grid, which are not yet computed.

        Args:
            read: The case with its arrays.

        Returns:
            The frames, without confidence maps.
        """
        size = network_grid(read.arrays.image.shape, read.arrays.spacing, self.size, self.spacing)
        return NetworkFrames.from_case(read, size, self.boundary)

    @staticmethod
    def label(read: ReadCase, size: tuple[int, ...]) -> Sample:
        """Resample the label of a case.

        Args:
            read: The case with its arrays.
            size: Size of the network's grid.

        Returns:
            Dictionary with the ``label``, which is empty if there is none.
        """
        return {} if read.arrays.label is None else {"label": resample(read.arrays.label, size, "nearest")}

    @staticmethod
    def description(read: ReadCase, size: tuple[int, ...]) -> Sample:
        """Return the name of a case, and the sizes of its voxels.

        Args:
            read: The case with its arrays.
            size: Size of the network's grid.

        Returns:
            Entries of :class:`PrepareCase` that are not arrays.
        """
        spacing, shape = read.arrays.spacing, read.arrays.image.shape
        return {
            "spacing": torch.tensor([s * n / m for s, n, m in zip(spacing, shape, size, strict=True)]),
            "native_spacing": torch.tensor(spacing, dtype=torch.float64),
            "native_shape": torch.tensor(shape),
            "unit": read.arrays.unit,
            "case": read.case.id,
            "patient": read.case.patient,
        }


@dataclass(frozen=True)
class PrepareCase(Transform):  # type: ignore[misc]
    """Transform from a case to the input of the network.

    Args:
        resampler: Resampling to the grid of the network.
        native: Whether to add label and insonified voxels at file resolution, for tests and predictions.
        by_frames: Whether to return ``frames``, from which frames on the network's grid are computed when they are
            needed, instead of arrays on this grid. It implies ``native``.
        confidence: Provider of the confidence map; None for no map.
        image_confidence: Provider of the map of the image itself if ``confidence`` is a control; None for no such map.
    """

    resampler: CaseResampler
    native: bool = False
    by_frames: bool = False
    confidence: MapProvider | None = None
    image_confidence: MapProvider | None = None

    def __call__(self, case: Case) -> Sample:
        """Prepare one case.

        Args:
            case: The case.

        Returns:
            Dictionary with ``image`` (float32 from 0 to 1), ``domain`` (bool), ``confidence`` (float32 from 0 to 1) and
            ``label`` (class indices, uint8), ``(1, depth, lateral[, elevation])`` each; ``spacing`` of this grid, and
            ``native_spacing`` and ``native_shape`` of the file, in ``unit``; and the strings ``case`` and ``patient``.
            Depending on the arguments, there are also ``source`` and ``sink`` (bool, as ``domain``), ``native_label``,
            ``native_domain``, ``frames`` and ``image_confidence``.
        """
        providers = {"confidence": self.confidence, "image_confidence": self.image_confidence}
        maps = {key: provider for key, provider in providers.items() if provider is not None}
        if not (self.native or self.by_frames):
            sample = self.resampler(case)
            size = tuple(sample["domain"].shape[1:])
            return sample | {key: provider(case, sample["domain"], size, None) for key, provider in maps.items()}
        read = self.resampler.reader.read(case)
        frames = self.resampler.frames(read).with_maps(maps)
        sample = {**self.resampler.description(read, frames.size), "native_domain": _tensor(frames.inside)[None]}
        if read.arrays.label is not None:
            sample["native_label"] = _tensor(read.arrays.label)[None]
        if self.by_frames:
            return {**sample, "frames": frames}
        return {**sample, **frames(), **self.resampler.label(read, frames.size)}


def network_grid(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    size: tuple[int, ...] | None,
    common_spacing: tuple[float, ...] | None,
) -> tuple[int, ...]:
    """Return the size of the network's grid for an image.

    Args:
        shape: Shape of the image.
        spacing: Voxel size of the image.
        size: Size to which whole images are resized, or None.
        common_spacing: Voxel size to which images are resampled, or None.

    Returns:
        Number of voxels along every axis, which is rounded for a common voxel size.
    """
    if size is not None:
        return size
    if common_spacing is not None:
        return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, common_spacing, strict=True))
    return shape


def _tensor(array: NDArray[np.generic]) -> Tensor:
    """Return a tensor of an array. Frames that are all the same array are not copied."""
    if array.ndim == 3 and array.strides[2] == 0 and array.shape[2] > 1:
        return _tensor(array[:, :, 0])[:, :, None].expand(array.shape)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
