"""Search for the insonified region of frames from any scanner: a network finds it, and a fit gives its exact edges."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.domain.fitting import Box, Family, Fit, fit_geometries
from cm_lightning.confidence.domain.network import GRID, RegionNetwork, load_network
from cm_lightning.confidence.domain.shapes import Geometry, Polygon, Rectangle, Sector, place_geometry
from cm_lightning.confidence.domain.sides import Side, turn_to_top
from cm_lightning.confidence.domain.snapping import EdgeFinder, snap
from cm_lightning.confidence.domain.views import RegionMaps, overlap, view_screen

FloatArray = NDArray[np.float64]

# Largest number of frames of a sequence that are used.
MAX_FRAMES = 64
# The alignment with edges in the pixels is not used if it changes the region more than to this overlap.
MIN_OVERLAP = 0.85
# Sides of a trapezoid that differ by less than this number of pixels are vertical.
VERTICAL_PIXELS = 1.5
# Points of a curved bottom of a polygon.
CURVE_POINTS = 13


@dataclass(frozen=True)
class RegionDetection:
    """Region that was detected in frames.

    Attributes:
        geometry: Geometry in pixels of the frames.
        shape: Shape of the frames, ``(depth, lateral)``.
        score_features: Features of the logistic model of the score: 1 (intercept), agreement of the views, fraction of
            uncertain cells, and quality of the fit, ``(4,)``.
    """

    geometry: Geometry
    shape: tuple[int, int]
    score_features: FloatArray

    @property
    def domain(self) -> BoolArray:
        """Insonified pixels, ``(depth, lateral)``."""
        return self.geometry.masks(self.shape).domain


def detect_with_score(frames: NDArray[np.generic], aspect: float = 1.0, up: str = "auto") -> tuple[Geometry, float]:
    """Find the insonified region of frames.

    Args:
        frames: Frames with the same geometry, at least one, ``(n, depth, lateral)``.
        aspect: Ratio of the pixel width to the pixel height, both in mm, or 1 if it is not known.
        up: Side at which the probe is; "auto" determines it from the image.

    Returns:
        Geometry in pixels of the frames, and the estimated probability that it is correct. If nothing is found, this is
        the whole frame and 0.
    """
    network, coefficients = load_network()
    detection = detect_region(network, frames, aspect, up)
    if detection is None:
        side: Side = "top" if up == "auto" else up  # type: ignore[assignment]
        return Rectangle(0, frames.shape[-2], 0, frames.shape[-1], side), 0.0
    return detection.geometry, float(1 / (1 + np.exp(-detection.score_features @ coefficients)))


def detect_region(
    network: RegionNetwork, frames: NDArray[np.generic], aspect: float = 1.0, up: str = "auto"
) -> RegionDetection | None:
    """Find the insonified region of frames with a given network.

    Args:
        network: The trained network.
        frames: Frames with the same geometry, at least one, ``(n, depth, lateral)``.
        aspect: Ratio of the pixel width to the pixel height, both in mm, or 1 if it is not known.
        up: Side at which the probe is; "auto" determines it from the image.

    Returns:
        The region; None if there is none.
    """
    image, change = summarise(frames)
    maps = view_screen(network, image, change)
    if not maps.region.any():
        return None
    side: Side = probe_side(maps) if up == "auto" else up  # type: ignore[assignment]
    part = np.ascontiguousarray(turn_to_top(image[maps.window.slices], side))
    probability, region = turn_to_top(maps.probability, side), turn_to_top(maps.region, side)
    scale = (part.shape[0] / region.shape[0], part.shape[1] / region.shape[1])
    turned_aspect = aspect if side in ("top", "bottom") else 1 / aspect
    fit = fit_geometries(probability, region, float(np.log(turned_aspect * scale[1] / scale[0])))[0]
    parameters, box = _to_pixels(fit, scale)
    shape = (maps.window.height, maps.window.width)
    candidates = [
        _to_geometry(fit.family, *snap(EdgeFinder(part, max(scale)), fit.family, parameters, box), part.shape),
        _to_geometry(fit.family, parameters, box, part.shape),
    ]
    masks = [_coarse_mask(geometry, part.shape, region.shape) for geometry in candidates]
    geometry = candidates[0] if overlap(*masks) > MIN_OVERLAP else candidates[1]
    if geometry is None or not masks[1].any():
        return None
    placed = place_geometry(geometry, side, shape, (maps.window.top, maps.window.left))
    # In small frames, a region of a few cells may contain no centre of a pixel.
    if max(image.shape) < GRID and not placed.masks((image.shape[0], image.shape[1])).domain.any():
        return None
    features = _score_features(maps.agreement, maps.uncertain_fraction, fit.overlap)
    return RegionDetection(placed, (image.shape[0], image.shape[1]), features)


def summarise(frames: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the maximum of frames with grey levels from 0 to 255, and their change over time.

    Args:
        frames: Frames, ``(n, depth, lateral)``.

    Returns:
        Maximum, ``(depth, lateral)``, and the standard deviation over the frames; None if all frames are equal.
    """
    chosen = frames[np.unique(np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(int))].astype(np.float32)
    lowest, highest = min(0.0, float(chosen.min())), float(chosen.max())
    if frames.dtype != np.uint8 and (lowest < 0 or not 100 < highest <= 255):
        chosen = (chosen - np.float32(lowest)) * np.float32(255 / max(highest - lowest, 1e-30))
    is_still = all(np.array_equal(frame, chosen[0]) for frame in chosen[1:])
    return chosen.max(axis=0), (None if is_still else chosen.std(axis=0))


def probe_side(maps: RegionMaps) -> Side:
    """Return the side of the screen at which the probe is: the one from which the predicted depth increases.

    Args:
        maps: Outputs of the network.
    """
    depth = np.pad(ndimage.gaussian_filter(maps.depth, 1.0), 1, mode="edge")
    down = depth[2:, 1:-1] - depth[:-2, 1:-1]
    right = depth[1:-1, 2:] - depth[1:-1, :-2]
    inside = ndimage.binary_erosion(maps.region, iterations=2)
    inside = inside if inside.any() else maps.region
    steps: dict[Side, float] = {"top": float(down[inside].mean()), "left": float(right[inside].mean())}
    steps |= {"bottom": -steps["top"], "right": -steps["left"]}
    return max(steps, key=lambda side: steps[side])


def _score_features(agreement: float, uncertain_fraction: float, fit: float) -> FloatArray:
    """Return the features of the score on scales on which the logit of the score is about linear."""
    return np.array(
        [1.0, -np.log(1.005 - agreement), np.log(uncertain_fraction + 0.02), -np.log(1.005 - min(1.0, fit))]
    )


def _coarse_mask(geometry: Geometry | None, shape: tuple[int, int], cells: tuple[int, int]) -> BoolArray:
    """Return the mask of a geometry on a coarser grid; empty if there is none."""
    return np.zeros(cells, bool) if geometry is None else geometry.on_grid(shape, cells).masks(cells).domain


def _to_pixels(fit: Fit, scale: tuple[float, float]) -> tuple[FloatArray, Box]:
    """Convert a fit from cells to pixels."""
    row, column = scale
    factors = {
        "rectangle": [row, row, column, column],
        "trapezoid": [row, column, column, row, column, column, row],
        "sector": [row, column, 1, 1, row, row, 1],
    }[fit.family]
    parameters = fit.parameters * np.array(factors)
    if fit.family == "sector":
        parameters[6] += np.log(row / column)
    return parameters, Box(fit.box.top * row, fit.box.bottom * row, fit.box.left * column, fit.box.right * column)


def _to_geometry(family: Family, parameters: FloatArray, box: Box, shape: tuple[int, int]) -> Geometry | None:
    """Convert fitted parameters in pixels to a geometry; None if they are not possible."""
    values = [float(value) for value in parameters]
    try:
        match family:
            case "rectangle":
                return _rectangle(values, shape)
            case "trapezoid":
                return _trapezoid(values, shape)
            case "sector":
                row, column, left, right, inner, outer, log_aspect = values
                cuts = (
                    box.top if box.top > 0 else None,
                    box.bottom if box.bottom < shape[0] else None,
                    box.left if box.left > 0 else None,
                    box.right if box.right < shape[1] else None,
                )
                angles = (float(np.degrees(left)), float(np.degrees(right)))
                return Sector(row, column, max(0.0, inner), outer, *angles, float(np.exp(log_aspect)), *cuts)
    except ValueError:
        return None


def _rectangle(parameters: Sequence[float], shape: tuple[int, int]) -> Rectangle:
    top, bottom, left, right = parameters
    rows, columns = shape
    return Rectangle(
        float(max(0, round(top))),
        float(min(rows, round(bottom))),
        float(max(0, round(left))),
        float(min(columns, round(right))),
    )


def _trapezoid(parameters: Sequence[float], shape: tuple[int, int]) -> Geometry:
    top, left_top, right_top, bottom, left_bottom, right_bottom, sag = parameters
    slants = (left_bottom - left_top, right_bottom - right_top)
    if max(abs(slant) for slant in slants) < VERTICAL_PIXELS and sag < VERTICAL_PIXELS:
        return _rectangle((top, bottom, (left_top + left_bottom) / 2, (right_top + right_bottom) / 2), shape)
    beam = np.linspace(1, 0, CURVE_POINTS if sag >= VERTICAL_PIXELS else 2)
    rows = bottom - max(0.0, sag) * (2 * beam - 1) ** 2
    columns = left_bottom + beam * (right_bottom - left_bottom)
    corners = ((top, left_top), (top, right_top))
    curve = tuple((float(row), float(column)) for row, column in zip(rows, columns, strict=True))
    return Polygon((*corners, *curve), corners)
