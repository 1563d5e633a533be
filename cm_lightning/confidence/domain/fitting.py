"""Fit of geometric families to a probability map, with the probe at the top."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import least_squares

FloatArray = NDArray[np.float64]
Family = Literal["rectangle", "trapezoid", "sector"]
# Signed distance in cells of the positions (rows, columns) from the border, positive inside. Several geometries are
# given as parameters of shape (parameters, geometries, 1).
Distance = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]

# Longer side in cells of the maps for the search and for the final fit.
SEARCH_SIDE, FIT_SIDE = 48, 112
# Gain in overlap over a rectangle that a family needs, because it has more parameters.
PENALTIES: dict[Family, float] = {"rectangle": 0.0, "trapezoid": 0.006, "sector": 0.008}
# Rectangles with this overlap are not compared with other families.
GOOD_RECTANGLE = 0.985
# Starting values of a sector: half of its opening angle in degrees, and its inner relative to its outer radius.
HALF_ANGLES = (10, 18, 27, 36, 45, 55, 66, 78)
INNER_RADII = (0.01, 0.12, 0.25, 0.42, 0.6, 0.75)
# Standard deviation of the logarithm of an aspect that is not known.
ASPECT_SD = 0.15
# Step of parameters for numerical derivatives, in units in which the border moves by about one cell.
DERIVATIVE_STEP = 1e-7


@dataclass(frozen=True)
class Box:
    """Extent of a region in cells, half-open.

    Attributes:
        top: First row.
        bottom: Row after the last one.
        left: First column.
        right: Column after the last one.
    """

    top: float
    bottom: float
    left: float
    right: float

    def distance(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        """Return the distance from the border, positive inside."""
        return np.minimum(
            np.minimum(rows - self.top, self.bottom - rows), np.minimum(columns - self.left, self.right - columns)
        )


@dataclass(frozen=True)
class Fit:
    """Geometry of a family, fitted to a probability map.

    Attributes:
        family: The family.
        parameters: Rectangle: top, bottom, left, right. Trapezoid: row of the top, its left and right column, row of
            the bottom in the middle, its left and right column, and how much lower its middle is than its ends. Sector:
            row and column of the apex, left and right angle in radians, inner and outer radius, logarithm of the
            aspect.
        overlap: Soft intersection over union with the probability map.
        box: Extent of the region, which cuts a sector.
    """

    family: Family
    parameters: FloatArray
    overlap: float
    box: Box

    def distance(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        """Return the distance of positions from the border, positive inside."""
        return distance_function(self.family, self.box)(self.parameters, rows, columns)


def fit_geometries(probability: FloatArray, region: NDArray[np.bool_], log_aspect: float = 0.0) -> list[Fit]:
    """Fit a rectangle, a trapezoid and a sector to a probability map.

    Args:
        probability: Probability that a cell is insonified, ``(rows, columns)``, with the probe at the top.
        region: Connected region of likely cells, not empty, ``(rows, columns)``.
        log_aspect: Logarithm of the expected ratio of the cell width to the cell height.

    Returns:
        The fits, the best one first.
    """
    neighbourhood = ndimage.binary_dilation(region, iterations=max(2, max(region.shape) // 40))
    box = _extent(region)
    open_box = _open_at_border(box, region.shape)
    search, final = (_Map(np.where(neighbourhood, probability, 0), side) for side in (SEARCH_SIDE, FIT_SIDE))

    def fit(family: Family, starts: list[FloatArray]) -> Fit:
        problem = _Problem(family, open_box, log_aspect)
        refined = [search.refine(problem, search.refine(problem, start, 3.0, 14), 1.5, 7) for start in starts]
        best = max(refined, key=lambda parameters: search.overlap(problem.distance, parameters))
        parameters = final.refine(problem, best, 1.0, 7)
        return Fit(family, parameters, final.overlap(problem.distance, parameters), open_box)

    fits = [fit("rectangle", [np.array([box.top, box.bottom, box.left, box.right])])]
    if fits[0].overlap < GOOD_RECTANGLE:
        sector = distance_function("sector", open_box)
        starts = sorted(_sector_starts(box, log_aspect), key=lambda start: -search.overlap(sector, start))
        fits += [fit("trapezoid", [_trapezoid_start(region, box)]), fit("sector", starts[:2])]
    return sorted(fits, key=lambda fit: PENALTIES[fit.family] - fit.overlap)


class _Map:
    """Probability map at a lower resolution, in coordinates of the original cells."""

    def __init__(self, probability: FloatArray, side: int) -> None:
        self.factor = max(1, max(probability.shape) // side)
        rows, columns = (size // self.factor * self.factor for size in probability.shape)
        blocks = probability[:rows, :columns].reshape(
            rows // self.factor, self.factor, columns // self.factor, self.factor
        )
        means = blocks.mean(axis=(1, 3))
        grid = np.mgrid[: means.shape[0], : means.shape[1]].reshape(2, -1)
        self.rows, self.columns = (grid + 0.5) * self.factor
        self.probability = means.ravel()

    def overlap(self, distance: Distance, parameters: FloatArray) -> float:
        """Return the soft intersection over union of a geometry with the map."""
        mask = _soft_mask(distance(parameters, self.rows, self.columns), self.factor)
        return float(np.minimum(mask, self.probability).sum() / (np.maximum(mask, self.probability).sum() + 1e-9))

    def refine(self, problem: "_Problem", parameters: FloatArray, width: float, evaluations: int) -> FloatArray:
        """Improve parameters by least squares with a soft border of a width in cells of this map."""
        width *= self.factor
        scales, family_distance = problem.scales, problem.distance
        distances = problem.distance(parameters, self.rows, self.columns)
        # Other cells do not change with small steps, or already agree.
        used = np.abs(distances) < 3 * width
        used |= np.abs(_soft_mask(distances, width) - self.probability) > 0.3
        rows, columns, target = self.rows[used], self.columns[used], self.probability[used]

        def residuals(steps: FloatArray) -> FloatArray:
            trial = parameters + steps * scales
            mask = _soft_mask(family_distance(trial, rows, columns), width)
            return np.append(mask - target, problem.prior(trial, len(self.probability)))

        def derivatives(steps: FloatArray) -> FloatArray:
            # All parameters at once, which takes a third of the time of one after the other.
            trials = (parameters + steps * scales)[:, None] + DERIVATIVE_STEP * np.diag(scales)
            masks = _soft_mask(family_distance(trials[:, :, None], rows, columns), width)
            priors = np.array([problem.prior(trial, len(self.probability)) for trial in trials.T])
            return (np.concatenate([masks - target, priors], axis=1) - residuals(steps)).T / DERIVATIVE_STEP

        start = np.zeros(len(parameters))
        # The faster method needs as many residuals as parameters, which frames of a few pixels do not have.
        method: Literal["lm", "trf"] = "lm" if len(residuals(start)) >= len(start) else "trf"
        result = least_squares(residuals, start, derivatives, method=method, max_nfev=evaluations, xtol=1e-3, ftol=1e-3)
        return parameters + result.x * scales


@dataclass(frozen=True)
class _Problem:
    """Fit of a family."""

    family: Family
    box: Box
    log_aspect: float

    @property
    def distance(self) -> Distance:
        """Function that computes distances from the border."""
        return distance_function(self.family, self.box)

    @property
    def scales(self) -> FloatArray:
        """Steps of the parameters that move the border by about one cell."""
        size = min(400.0, max(8.0, self.box.bottom - self.box.top, self.box.right - self.box.left))
        if self.family == "sector":
            return np.array([1.0, 1.0, 1 / size, 1 / size, 1.0, 1.0, 1 / size])
        return np.ones(4 if self.family == "rectangle" else 7)

    def prior(self, parameters: FloatArray, cells: int) -> FloatArray:
        """Return residuals of unlikely parameters: an unusual aspect, a negative radius or sag."""
        match self.family:
            case "sector":
                aspect_residual = 0.005 * (parameters[6] - self.log_aspect) / ASPECT_SD
                return np.sqrt(cells) * np.array([aspect_residual, 0.05 * min(0.0, parameters[4])])
            case "trapezoid":
                return np.sqrt(cells) * np.array([0.05 * min(0.0, parameters[6])])
        return np.zeros(0)


def _soft_mask(distance: FloatArray, width: float) -> FloatArray:
    """Return a mask whose border is smooth over a width."""
    return 1 / (1 + np.exp(-np.clip(distance * (4 / width), -30, 30)))


def distance_function(family: Family, box: Box) -> Distance:
    """Return the function that computes distances from the border of a family.

    Args:
        family: The family.
        box: Extent of the region, which cuts a sector.

    Returns:
        Function of the parameters (see :class:`Fit`) and of the rows and columns of positions.
    """
    match family:
        case "rectangle":
            return lambda parameters, rows, columns: Box(*parameters).distance(rows, columns)
        case "trapezoid":
            return _trapezoid_distance
        case "sector":
            return lambda parameters, rows, columns: np.minimum(
                _sector_distance(parameters, rows, columns), box.distance(rows, columns)
            )


def _trapezoid_distance(parameters: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    top, left_top, right_top, bottom, left_bottom, right_bottom, sag = parameters
    down = (rows - top) / np.maximum(bottom - sag - top, 1e-3)
    left, right = left_top + (left_bottom - left_top) * down, right_top + (right_bottom - right_top) * down
    height = np.maximum(bottom - top, 1.0)
    left_scale = 1 / np.hypot(1, (left_bottom - left_top) / height)
    right_scale = 1 / np.hypot(1, (right_bottom - right_top) / height)
    beam = np.clip((columns - left) / np.maximum(right - left, 1.0), 0, 1)
    sides = np.minimum((columns - left) * left_scale, (right - columns) * right_scale)
    return np.minimum(sides, np.minimum(rows - top, bottom - sag * (2 * beam - 1) ** 2 - rows))


def _sector_distance(parameters: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    row, column, left, right, inner, outer, log_aspect = parameters
    down, across = rows - row, (columns - column) * np.exp(log_aspect)
    radius = np.hypot(down, across)
    arcs = np.minimum(radius - inner, outer - radius)
    sides = np.minimum(across * np.cos(left) - down * np.sin(left), down * np.sin(right) - across * np.cos(right))
    return np.minimum(arcs, sides)


def _sector_starts(box: Box, log_aspect: float) -> list[FloatArray]:
    """Return sectors of many angles and radii that fill a box."""
    height, width = box.bottom - box.top, box.right - box.left
    starts = []
    for half, ratio in product(np.radians(HALF_ANGLES), INNER_RADII):
        outer = height / (1 - ratio * np.cos(half))
        row = box.top - ratio * np.cos(half) * outer
        fitting = float(np.clip(np.log(2 * np.sin(half) * outer / width), log_aspect - 0.35, log_aspect + 0.35))
        for aspect in {fitting, log_aspect}:
            starts.append(np.array([row, (box.left + box.right) / 2, -half, half, ratio * outer, outer, aspect]))
    return starts


def _trapezoid_start(region: NDArray[np.bool_], box: Box) -> FloatArray:
    """Estimate a trapezoid from the first and last cells of the rows near the top and the bottom of a region."""
    rows = np.flatnonzero(region.any(axis=1))
    quarter = max(1, len(rows) // 4)
    ends = []
    for part in (rows[:quarter], rows[-quarter:]):
        left = np.median(region[part].argmax(axis=1))
        right = np.median(region.shape[1] - region[part][:, ::-1].argmax(axis=1))
        ends.append((float(left), float(right)))
    # The medians lie at an eighth of the height from the ends.
    slope = [(ends[1][side] - ends[0][side]) / 6 for side in (0, 1)]
    return np.array(
        [
            box.top,
            ends[0][0] - slope[0],
            ends[0][1] - slope[1],
            box.bottom,
            ends[1][0] + slope[0],
            ends[1][1] + slope[1],
            0.5,
        ]
    )


def _extent(region: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return Box(float(rows[0]), float(rows[-1] + 1), float(columns[0]), float(columns[-1] + 1))


def _open_at_border(box: Box, shape: tuple[int, ...]) -> Box:
    """Extend a box where it reaches the border of the screen, which cuts the region anyway."""
    far = 1000.0
    return Box(
        box.top - 0.5 if box.top > 0 else -far,
        box.bottom + 0.5 if box.bottom < shape[0] else far,
        box.left - 0.5 if box.left > 0 else -far,
        box.right + 0.5 if box.right < shape[1] else far,
    )
