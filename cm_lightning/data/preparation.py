"""From a case's files to the tensors that a network sees."""

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
    """Brings cases to the network's grid.

    Args:
        reader: Reads the cases.
        size: Grid that whole images are resized to, or None.
        spacing: Common voxel size (depth, lateral, elevation) that images are resampled to, or None.
        boundary: Also give the pixels where random walks begin and end, for maps that are computed on this grid.
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
        """Read and resample a case, unless that was done already.

        Args:
            case: The case.
            keep_native: Also give the label at file resolution.

        Returns:
            All that :class:`PrepareCase` gives but confidence maps.
        """
        ready = self._resampled.pop(case.id, None)
        return self._resample(self.reader.read(case), keep_native) if ready is None else ready

    def resample_now(self, read: ReadCase) -> None:
        """Resample a case while it is in memory, for the next call that asks for it.

        Args:
            read: The case.
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
        """Size of the network's grid; a common spacing keeps the extent and rounds the number of voxels."""
        if self.size is not None:
            return self.size
        if self.spacing is not None:
            return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, self.spacing, strict=True))
        return shape


@dataclass(frozen=True)
class PrepareCase(Transform):  # type: ignore[misc]
    """Give a case as a network sees it.

    Args:
        resampler: Brings it to the network's grid.
        keep_native: Also give the label at file resolution, for testing.
        confidence: How a case gets its confidence map, or None for no map.
        own_confidence: How a case gets the map of its own image where ``confidence`` is a control, or None.
    """

    resampler: CaseResampler
    keep_native: bool = False
    confidence: MapProvider | None = None
    own_confidence: MapProvider | None = None

    def __call__(self, case: Case) -> Sample:
        """Prepare one case.

        Args:
            case: The case.

        Returns:
            ``image`` (float32 in [0, 1]), ``domain`` (bool), ``confidence`` (float32) and ``label`` (uint8 class
            indices), each ``(1, depth, lateral[, elevation])``; ``spacing`` of that grid and ``native_spacing`` and
            ``native_shape`` of the file's, in ``unit``; the strings ``case`` and ``patient``; with the resampler's
            ``boundary``, ``source`` and ``sink`` (bool, like ``domain``); with ``keep_native``, ``native_label``; with
            ``own_confidence``, that map.
        """
        sample = self.resampler(case, self.keep_native)
        if self.confidence is not None:
            sample["confidence"] = self.confidence(case, sample["domain"])
        if self.own_confidence is not None:
            sample["own_confidence"] = self.own_confidence(case, sample["domain"])
        return sample


def insonified_voxels(image: NDArray[np.generic], geometry: ProbeGeometry) -> NDArray[np.bool_]:
    """Mark the insonified voxels of an image.

    Args:
        image: ``(depth, lateral[, elevation])``.
        geometry: What the probe insonifies in its frames.

    Returns:
        Mask of the same shape.
    """
    frames = to_frames(image)
    return to_volume(np.broadcast_to(geometry.domain(frames), frames.shape))


def _boundary(domain: Tensor, geometry: ProbeGeometry, shape: tuple[int, int]) -> dict[str, Tensor]:
    """Find source and sink on the network's grid: thin lines do not survive resampling, so they are drawn anew."""
    frames = to_frames(domain[0].numpy())
    grid = (frames.shape[-2], frames.shape[-1])
    lines = geometry.on_grid(shape, grid).boundary(frames)
    return {
        key: torch.from_numpy(to_volume(np.broadcast_to(mask, frames.shape)).copy())[None]
        for key, mask in zip(("source", "sink"), lines, strict=True)
    }


def _unit_range(image: NDArray[np.generic], inside: NDArray[np.bool_], size: Sequence[int]) -> Tensor:
    """Resample a case with its insonified intensities scaled to [0, 1] and pixels outside 0."""
    where = inside if inside.any() else np.True_
    low = image.min(where=where, initial=image.max())
    high = image.max(where=where, initial=image.min())
    lifted = np.where(inside, image, low)
    return (resample(lifted, size, "linear") - float(low)) / (float(high) - float(low) or 1.0)
