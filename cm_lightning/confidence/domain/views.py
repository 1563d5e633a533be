"""Views of a screen for the network, whose outputs are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.confidence.domain.network import (
    RegionNetwork,
    flat_features,
    pixel_features,
    place,
    to_grid,
)

FloatArray = NDArray[np.float64]

# Zoomed-out view: margin around the screen on each side, as a fraction of the screen.
MARGIN = 0.12
# Zoomed-in view: margin around the region on each side, as a fraction of the region's longer side.
ZOOM_MARGIN = 0.2
# The zoomed view is used if it leaves out at least 15 % of the longer side of the screen.
ZOOM_LIMIT = 0.85
# Candidate thresholds of the probability; the one with the largest expected overlap is used.
THRESHOLDS = (0.5, 0.42, 0.35, 0.28, 0.22, 0.16)


@dataclass(frozen=True)
class Window:
    """Part of a screen in pixels.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
    """

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the part."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class RegionMaps:
    """Outputs of the network for a part of a screen, on its cells.

    Attributes:
        window: Part of the screen.
        probability: Probability that a cell is insonified, ``(rows, columns)``.
        depth: Distance from the probe along the beam from 0 to 1, ``(rows, columns)``.
        region: Connected region with the largest expected overlap with the insonified region, ``(rows, columns)``.
        agreement: Mean intersection over union of the regions of single views with their common one.
        uncertain_fraction: Area of uncertain cells, relative to the area of the region.
    """

    window: Window
    probability: FloatArray
    depth: FloatArray
    region: NDArray[np.bool_]
    agreement: float
    uncertain_fraction: float


def view_screen(network: RegionNetwork, image: NDArray[np.float32], change: NDArray[np.float32] | None) -> RegionMaps:
    """Apply the network to several views of a screen.

    The views are the screen and its mirror image, both also with a margin, and then the part of the screen around the
    region in its own resolution.

    Args:
        network: The trained network.
        image: Grey levels from 0 to 255, ``(rows, columns)``.
        change: Standard deviation of the grey levels over a sequence, ``(rows, columns)``, or None.

    Returns:
        Averaged outputs for the screen, or for the part around the region.
    """
    features, factor = pixel_features(torch.from_numpy(image), None if change is None else torch.from_numpy(change))
    rows, columns = image.shape
    views = _outputs(network, features)
    margins = [int(MARGIN * size) for size in features.shape[1:]]
    inner = [(margin / (size + 2 * margin)) for margin, size in zip(margins, features.shape[1:], strict=True)]
    sides = (inner[0], 1 - inner[0], inner[1], 1 - inner[1])
    padded = _with_margin(features, margins)
    views += [_read_part(output, sides, views[0].shape[1:]) for output in _outputs(network, padded)]
    mean = torch.stack(views).mean(0)
    region = likely_region(mean[0].sigmoid().numpy().astype(np.float64))
    window = Window(0, 0, rows, columns)
    agreement = float(np.mean([overlap(largest_part(view[0].numpy() > 0), region) for view in views]))
    part = _window_around(region, (rows, columns), factor) if region.any() else window
    uncertain_fraction = _uncertain_fraction(mean[0], region)
    if max(part.height, part.width) < ZOOM_LIMIT * max(rows, columns):
        bottom, right = part.top + part.height, part.left + part.width
        reduced = features[:, part.top // factor : -(-bottom // factor), part.left // factor : -(-right // factor)]
        zoomed = torch.stack(_outputs(network, reduced)).mean(0)
        sides = (part.top / rows, bottom / rows, part.left / columns, right / columns)
        both = (zoomed + _read_part(mean, sides, zoomed.shape[1:])) / 2
        zoomed_region = likely_region(both[0].sigmoid().numpy().astype(np.float64))
        before = _read_part(torch.from_numpy(region[None].astype(np.float32)), sides, zoomed.shape[1:])[0].numpy() > 0.5
        if overlap(before, zoomed_region) > 0.6:
            window, mean, region = part, both, zoomed_region
    outputs = mean.sigmoid().numpy().astype(np.float64)
    return RegionMaps(window, outputs[0], outputs[1], region, agreement, uncertain_fraction)


def _outputs(network: RegionNetwork, features: Tensor) -> list[Tensor]:
    """Return the network's logits for a screen and its mirror image, on the cells of the screen."""
    placement = place((features.shape[1], features.shape[2]))
    inputs = to_grid(features, placement)
    with torch.inference_mode():
        plain, mirrored = network(torch.stack([inputs, inputs.flip(-1)]))
    return [placement.cut(plain), placement.cut(mirrored.flip(-1))]


def _with_margin(features: Tensor, margins: Sequence[int]) -> Tensor:
    """Add a margin that is flat, with the most frequent grey level of the border."""
    levels = features[1]
    border = (torch.cat([levels[0], levels[-1], levels[:, 0], levels[:, -1]]) * 255).round().long()
    level = torch.bincount(border, minlength=256).argmax().float()
    rows, columns = features.shape[1] + 2 * margins[0], features.shape[2] + 2 * margins[1]
    padded = torch.empty(len(features), rows, columns)
    padded[:2] = flat_features(level)[:, None, None]
    for index, value in ((2, 0.0), (3, 1.0), (4, 0.0), (5, float(features[5, 0, 0])), (6, 1.0)):
        padded[index] = value
    padded[:, margins[0] : rows - margins[0], margins[1] : columns - margins[1]] = features
    return padded


def _read_part(
    outputs: Tensor, inner: tuple[float, float, float, float], shape: tuple[int, ...] | torch.Size
) -> Tensor:
    """Resample a part of a grid, whose sides are fractions of the rows and columns, to another shape."""
    top, bottom, left, right = inner
    rows = top + (torch.arange(shape[0]) + 0.5) / shape[0] * (bottom - top)
    columns = left + (torch.arange(shape[1]) + 0.5) / shape[1] * (right - left)
    grid = torch.stack(torch.meshgrid(2 * columns - 1, 2 * rows - 1, indexing="xy"), -1)[None]
    return F.grid_sample(outputs[None], grid.to(outputs.dtype), padding_mode="border", align_corners=False)[0]


def _window_around(region: NDArray[np.bool_], shape: tuple[int, int], factor: int) -> Window:
    """Return the part of a screen around a region, with a margin, that starts at a multiple of a factor."""
    sides = []
    for axis in (0, 1):
        indices = np.flatnonzero(region.any(axis=1 - axis))
        sides.append(
            (indices[0] / region.shape[axis] * shape[axis], (indices[-1] + 1) / region.shape[axis] * shape[axis])
        )
    margin = ZOOM_MARGIN * max(stop - start for start, stop in sides)
    (top, bottom), (left, right) = [
        (max(0, int((start - margin) // factor * factor)), min(size, int(np.ceil((stop + margin) / factor) * factor)))
        for (start, stop), size in zip(sides, shape, strict=True)
    ]
    return Window(top, left, bottom - top, right - left)


def likely_region(probability: FloatArray) -> NDArray[np.bool_]:
    """Return the connected region with the largest expected overlap with the insonified region.

    Args:
        probability: Probability that a cell is insonified, ``(rows, columns)``.

    Returns:
        The region without holes, ``(rows, columns)``; empty if no cell is likely.
    """
    best, best_overlap = np.zeros(probability.shape, bool), 0.0
    for threshold in THRESHOLDS:
        region = largest_part(probability > threshold)
        inside = probability[region].sum()
        expected = float(inside / (probability.sum() + np.count_nonzero(region) - inside)) if region.any() else 0.0
        if expected > best_overlap + 0.003:
            best, best_overlap = region, expected
    return best


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part of a mask, without holes."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(parts == sizes.argmax())
    return filled


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks; 0 if both are empty."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def _uncertain_fraction(logits: Tensor, region: NDArray[np.bool_]) -> float:
    probability = logits.sigmoid()
    return float((4 * probability * (1 - probability)).sum()) / max(1, int(np.count_nonzero(region)))
