"""Preparation of cases as input of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor

from cm_lightning.confidence import ProbeGeometry
from cm_lightning.data.cases import Case
from cm_lightning.data.frames import to_frames, to_volume
from cm_lightning.data.map_sources import MapProvider
from cm_lightning.data.reading import CaseReader, ReadCase
from cm_lightning.data.resampling import resample

Sample = dict[str, Any]


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

    def __call__(self, case: Case, keep_native: bool = False) -> Sample:
        """Read and resample a case, if it was not resampled before.

        Args:
            case: The case.
            keep_native: Whether to add the label at file resolution.

        Returns:
            Entries of :class:`PrepareCase` except for confidence maps.
        """
        resampled = self._resampled.pop(case.id, None)
        return self._resample(self.reader.read(case), keep_native) if resampled is None else resampled

    def resample_now(self, read: ReadCase) -> None:
        """Resample a case while it is in memory, for the next call with this case.

        Args:
            read: The case with its arrays.
        """
        self._resampled[read.case.id] = self._resample(read, keep_native=False)

    def _resample(self, read: ReadCase, keep_native: bool) -> Sample:
        arrays = read.arrays
        shape = arrays.image.shape
        size = self._grid(shape, arrays.spacing)
        inside = insonified_voxels(arrays.image, read.geometry)
        sample: Sample = {
            "image": _unit_range(arrays.image, inside, size),
            "domain": resample(inside, size, "nearest"),
            "spacing": torch.tensor([s * n / m for s, n, m in zip(arrays.spacing, shape, size, strict=True)]),
            "native_spacing": torch.tensor(arrays.spacing, dtype=torch.float64),
            "native_shape": torch.tensor(shape),
            "unit": arrays.unit,
            "case": read.case.id,
            "patient": read.case.patient,
        }
        if self.boundary:
            sample |= _boundary(sample["domain"], read.geometry, (shape[0], shape[1]))
        if arrays.label is not None:
            sample["label"] = resample(arrays.label, size, "nearest")
            if keep_native:
                sample["native_label"] = torch.from_numpy(np.ascontiguousarray(arrays.label))[None]
        return sample

    def _grid(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Return the size of the network's grid. For a common spacing, the number of voxels is rounded."""
        if self.size is not None:
            return self.size
        if self.spacing is not None:
            return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, self.spacing, strict=True))
        return shape


@dataclass(frozen=True)
class PrepareCase(Transform):  # type: ignore[misc]
    """Transform from a case to the input of the network.

    Args:
        resampler: Resampling to the grid of the network.
        keep_native: Whether to add the label at file resolution, for tests.
        confidence: Provider of the confidence map; None for no map.
        image_confidence: Provider of the map of the image itself if ``confidence`` is a control; None for no such map.
    """

    resampler: CaseResampler
    keep_native: bool = False
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
            Depending on the arguments, there are also ``source`` and ``sink`` (bool, as ``domain``), ``native_label``
            and ``image_confidence``.
        """
        sample = self.resampler(case, self.keep_native)
        if self.confidence is not None:
            sample["confidence"] = self.confidence(case, sample["domain"])
        if self.image_confidence is not None:
            sample["image_confidence"] = self.image_confidence(case, sample["domain"])
        return sample


def insonified_voxels(image: NDArray[np.generic], geometry: ProbeGeometry) -> NDArray[np.bool_]:
    """Return the insonified voxels of an image.

    Args:
        image: Image, ``(depth, lateral[, elevation])``.
        geometry: Geometry of the insonified region.

    Returns:
        Mask, ``(depth, lateral[, elevation])``.
    """
    frames = to_frames(image)
    return to_volume(np.broadcast_to(geometry.domain(frames), frames.shape))


def _boundary(domain: Tensor, geometry: ProbeGeometry, shape: tuple[int, int]) -> dict[str, Tensor]:
    """Find source and sink on the network's grid. They are not resampled, because they are thin lines."""
    frames = to_frames(domain[0].numpy())
    grid = (frames.shape[-2], frames.shape[-1])
    lines = geometry.on_grid(shape, grid).boundary(frames)
    return {
        key: torch.from_numpy(to_volume(np.broadcast_to(mask, frames.shape)).copy())[None]
        for key, mask in zip(("source", "sink"), lines, strict=True)
    }


def _unit_range(image: NDArray[np.generic], inside: NDArray[np.bool_], size: Sequence[int]) -> Tensor:
    """Scale the insonified intensities of an image to the range from 0 to 1, set all others to 0, and resample it."""
    mask = inside if inside.any() else np.True_
    low = image.min(where=mask, initial=image.max())
    high = image.max(where=mask, initial=image.min())
    masked = np.where(inside, image, low)
    return (resample(masked, size, "linear") - float(low)) / (float(high) - float(low) or 1.0)
