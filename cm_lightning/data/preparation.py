"""From a case's files to the tensors that a network sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Resize, Transform
from numpy.typing import NDArray
from torch import Tensor

from cm_lightning.data.cases import Case, read_case
from cm_lightning.data.confidence_maps import ConfidenceCache, DomainName, find_domain
from cm_lightning.data.images import Axes


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
        cache: Where confidence maps at file resolution lie, or None for no map.
        keep_native: Also give the label at file resolution, for testing.
    """

    axes: Axes
    classes: dict[str, int]
    domain: DomainName
    spacing_mm: tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    cache: ConfidenceCache | None = None
    keep_native: bool = False

    def __call__(self, case: Case) -> dict[str, Any]:
        """Prepare one case.

        Args:
            case: The case.

        Returns:
            ``image`` (float32 in [0, 1]), ``domain`` (bool), ``confidence`` (float32) and ``label`` (uint8 class
            indices), each ``(1, depth, lateral[, elevation])``; ``spacing`` of that grid and ``native_spacing`` and
            ``native_shape`` of the file's, in ``unit``; the strings ``case`` and ``patient``; with ``keep_native``,
            ``native_label``.
        """
        arrays = read_case(case, self.axes, self.classes, self.spacing_mm)
        shape = arrays.image.shape
        size = self._grid(shape, arrays.spacing)
        inside = find_domain(arrays.image, self.domain)
        sample: dict[str, Any] = {
            "image": resample(_unit_range(arrays.image, inside), size, "linear"),
            "domain": resample(inside.astype(np.float32), size, "nearest").bool(),
            "spacing": torch.tensor([s * n / m for s, n, m in zip(arrays.spacing, shape, size, strict=True)]),
            "native_spacing": torch.tensor(arrays.spacing, dtype=torch.float64),
            "native_shape": torch.tensor(shape),
            "unit": arrays.unit,
            "case": case.id,
            "patient": case.patient,
        }
        if self.cache is not None:
            sample["confidence"] = resample(self.cache.load(case.image), size, "linear").clamp(0, 1)
        if arrays.label is not None:
            sample["label"] = resample(arrays.label.astype(np.float32), size, "nearest").to(torch.uint8)
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


def resample(array: NDArray[np.generic], size: Sequence[int], how: str) -> Tensor:
    """Resize an array over the same extent, smoothing before it gets smaller so that speckle does not alias.

    Args:
        array: ``(depth, lateral[, elevation])``, float32.
        size: New size.
        how: ``linear`` or ``nearest`` (no smoothing).

    Returns:
        Tensor of shape ``(1, *size)``, float32.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None]
    if tuple(tensor.shape[1:]) == tuple(size):
        return tensor
    if how == "nearest":
        return Resize(tuple(size), mode="nearest-exact")(tensor).as_tensor()
    mode = "bilinear" if array.ndim == 2 else "trilinear"
    return Resize(tuple(size), mode=mode, anti_aliasing=True)(tensor).as_tensor()


def _unit_range(image: NDArray[np.generic], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale a case's insonified intensities to [0, 1]; pixels outside are 0."""
    values = image.astype(np.float32)
    chosen = values[inside] if inside.any() else values
    low, high = float(chosen.min()), float(chosen.max())
    scaled = (values - low) / (high - low if high > low else 1.0)
    return np.where(inside, scaled, 0).astype(np.float32)
