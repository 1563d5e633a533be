"""From a case's files to the tensors that a network sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.confidence import Fan, column_sink, column_source
from cm_lightning.data.cases import Case, read_case
from cm_lightning.data.confidence_maps import (
    FRAMES_AT_ONCE,
    LEVELS,
    ConfidenceCache,
    DomainName,
    find_domain,
    find_probe_fan,
    to_frames,
    to_volume,
)
from cm_lightning.io import Axes

ConfidenceOf = Callable[[Case, Tensor], Tensor]  # a case and its domain, (1, depth, lateral[, elevation]), to its map


@dataclass(frozen=True)
class StoredMap:
    """Confidence maps that were computed at file resolution.

    Args:
        cache: Where they lie.
        donors: Case whose map a case gets in place of its own, by the case's id; None for its own.
    """

    cache: ConfidenceCache
    donors: Mapping[str, Case] | None = None

    def __call__(self, case: Case, domain: Tensor) -> Tensor:
        """Bring a map to the grid of the case's domain, ``(1, depth, lateral[, elevation])`` in [0, 1]."""
        taken = case if self.donors is None else self.donors[case.id]
        confidence = (resample(self.cache.load(taken.image), domain.shape[1:], "linear") / LEVELS).clamp(0, 1)
        return confidence if self.donors is None else confidence * domain


@dataclass(frozen=True)
class DepthRamp:
    """A control in place of the confidence map: 1 at the first insonified row of a frame, falling to 0 at its last."""

    def __call__(self, case: Case, domain: Tensor) -> Tensor:
        """Draw the ramp inside the domain, ``(1, depth, lateral[, elevation])``."""
        rows = domain.shape[1]
        inside = domain.any(dim=2, keepdim=True).float()
        first = inside.argmax(dim=1, keepdim=True)
        last = rows - 1 - inside.flip(1).argmax(dim=1, keepdim=True)
        row = torch.arange(rows).reshape(1, rows, *(1,) * (domain.ndim - 2))
        return (1 - (row - first) / (last - first).clamp_min(1)) * domain


@dataclass(frozen=True)
class PrepareCase(Transform):  # type: ignore[misc]
    """Read, check and resample a case.

    Args:
        axes: Which file axis is which.
        classes: Value in the label file of every class.
        domain: Which pixels are insonified.
        spacing_mm: Voxel size in file order in place of the file's own, or None.
        size: Grid that whole images are resized to, or None.
        spacing: Common voxel size (depth, lateral, elevation) that images are resampled to, or None.
        confidence: How a case gets its confidence map, or None for no map.
        own_confidence: How a case gets the map of its own image where ``confidence`` is a control, or None.
        boundary: Also give the pixels where random walks begin and end, for maps that are computed on this grid.
        keep_native: Also give the label at file resolution, for testing.
    """

    axes: Axes
    classes: dict[str, int]
    domain: DomainName
    spacing_mm: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    confidence: ConfidenceOf | None = None
    own_confidence: ConfidenceOf | None = None
    boundary: bool = False
    keep_native: bool = False

    def __call__(self, case: Case) -> dict[str, Any]:
        """Prepare one case.

        Args:
            case: The case.

        Returns:
            ``image`` (float32 in [0, 1]), ``domain`` (bool), ``confidence`` (float32) and ``label`` (uint8 class
            indices), each ``(1, depth, lateral[, elevation])``; ``spacing`` of that grid and ``native_spacing`` and
            ``native_shape`` of the file's, in ``unit``; the strings ``case`` and ``patient``; with ``boundary``,
            ``source`` and ``sink`` (bool, like ``domain``); with ``keep_native``, ``native_label``; with
            ``own_confidence``, that map.
        """
        arrays = read_case(case, self.axes, self.classes, self.spacing_mm)
        shape = arrays.image.shape
        size = self._grid(shape, arrays.spacing)
        fan = find_probe_fan(arrays.image, self.domain, arrays.spacing)
        inside = find_domain(arrays.image, self.domain, fan)
        sample: dict[str, Any] = {
            "image": _unit_range(arrays.image, inside, size),
            "domain": resample(inside, size, "nearest"),
            "spacing": torch.tensor([s * n / m for s, n, m in zip(arrays.spacing, shape, size, strict=True)]),
            "native_spacing": torch.tensor(arrays.spacing, dtype=torch.float64),
            "native_shape": torch.tensor(shape),
            "unit": arrays.unit,
            "case": case.id,
            "patient": case.patient,
        }
        if self.boundary:
            sample |= _boundary(sample["domain"], fan, shape)
        if self.confidence is not None:
            sample["confidence"] = self.confidence(case, sample["domain"])
        if self.own_confidence is not None:
            sample["own_confidence"] = self.own_confidence(case, sample["domain"])
        if arrays.label is not None:
            sample["label"] = resample(arrays.label, size, "nearest")
            if self.keep_native:
                sample["native_label"] = torch.from_numpy(np.ascontiguousarray(arrays.label))[None]
        return sample

    def _grid(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Size of the network's grid; a common spacing keeps the extent and rounds the number of voxels."""
        if self.size is not None:
            return self.size
        if self.spacing is not None:
            return tuple(max(1, round(n * s / t)) for n, s, t in zip(shape, spacing, self.spacing, strict=True))
        return shape


def _boundary(domain: torch.Tensor, fan: Fan | None, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Find source and sink on the network's grid: thin lines do not survive resampling, so they are drawn anew."""
    volume = domain[0].numpy()
    if fan is not None:
        frame = (volume.shape[0], volume.shape[1])
        masks = fan.on_grid((shape[0], shape[1]), frame).masks(frame)
        drawn = [mask if volume.ndim == 2 else mask[:, :, None] for mask in (masks.source, masks.sink)]
        source, sink = (np.broadcast_to(mask, volume.shape) & volume for mask in drawn)
    else:
        frames = to_frames(volume)
        source, sink = (to_volume(find(frames)) for find in (column_source, column_sink))
    return {key: torch.from_numpy(mask.copy())[None] for key, mask in (("source", source), ("sink", sink))}


def resample(array: NDArray[np.generic], size: Sequence[int], how: Literal["linear", "nearest"]) -> Tensor:
    """Resize an array over the same extent.

    Linear interpolation widens its triangle where the array gets smaller, so that speckle does not alias. Frames are
    resized some at a time and elevation last: a volume of the calf has half a billion voxels and is never held as
    float.

    Args:
        array: ``(depth, lateral[, elevation])``, any real dtype.
        size: New size.
        how: ``linear``, or ``nearest`` for labels and masks.

    Returns:
        Tensor of shape ``(1, *size)``; float32 for ``linear``, else of the array's dtype.
    """
    if how == "nearest":
        centres = [(np.arange(m) + 0.5) * n / m for n, m in zip(array.shape, size, strict=True)]
        return torch.from_numpy(np.ascontiguousarray(array[np.ix_(*(c.astype(int) for c in centres))]))[None]
    frames = to_frames(array).reshape(-1, *array.shape[:2])
    resized = []
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        part = np.ascontiguousarray(frames[start : start + FRAMES_AT_ONCE], np.float32)
        resized.append(_resize_linearly(torch.from_numpy(part), size[:2]))
    stack = torch.cat(resized)
    if array.ndim == 2:
        return stack
    lines = stack.movedim(0, -1).reshape(1, -1, stack.shape[0])
    return _resize_linearly(lines, (lines.shape[1], size[2])).reshape(1, *size)


def _resize_linearly(frames: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``(frames, rows, columns)``."""
    if tuple(frames.shape[1:]) == tuple(size):
        return frames
    return F.interpolate(frames[None], size=tuple(size), mode="bilinear", antialias=True, align_corners=False)[0]


def _unit_range(image: NDArray[np.generic], inside: NDArray[np.bool_], size: Sequence[int]) -> Tensor:
    """Resample a case with its insonified intensities scaled to [0, 1] and pixels outside 0."""
    where = inside if inside.any() else np.True_
    low = image.min(where=where, initial=image.max())
    high = image.max(where=where, initial=image.min())
    lifted = np.where(inside, image, low)
    return (resample(lifted, size, "linear") - float(low)) / (float(high) - float(low) or 1.0)
