"""Assembly of the linear systems of frames by compiled functions, for the CPU.

Edge weights are those of :class:`cm_lightning.confidence.weights.WeightFunction`, up to rounding errors. Frames are
processed in groups of the same shape as arrays of shape ``(depth, lateral * lanes)``: ``lanes`` values of the same
pixel of different frames are next to each other. For a single frame, ``lanes`` is 1, and these are ordinary frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import MIN_WEIGHT_RATIO
from cm_lightning.confidence.boundary import Rectangle
from cm_lightning.confidence.cpu.threads import Workers, row_blocks
from cm_lightning.confidence.graph import RandomWalkGraph, boundary_conditions
from cm_lightning.confidence.problem import Problem
from cm_lightning.confidence.weights import EDGE_ENDS, EDGE_FLOOR, EDGE_STEPS

Array = NDArray[Any]

_STEPS = np.array(EDGE_STEPS)
# Coefficients of the Taylor series of the exponential function, from 1 / 13! to 1.
_TAYLOR = tuple(1.0 / float(np.prod(np.arange(1, n + 1, dtype=np.float64))) for n in range(13, -1, -1))
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Adding this number rounds to an integer, which is then in the lowest bits.
_ROUND = 6755399441055744.0
# Arguments below this one give the exponential of this one, about 1e-304.
_LOWEST = -700.0


@dataclass(frozen=True)
class Group:
    """Linear systems of frames with the same shape.

    Attributes:
        frames: Index of every frame in the problem.
        rectangles: Bounding box of the domain of every frame, as slices of its rows and columns.
        lanes: Number of interleaved frames, that is, of values per pixel. ``graph.unknown`` is False for missing
            frames.
        domain: Insonified pixels, ``(depth, lateral * lanes)``.
        values: Known values, 0 elsewhere, float64, ``(depth, lateral * lanes)``.
        graph: The linear systems, whose arrays have the shapes of :class:`RandomWalkGraph` with ``lanes`` times as many
            columns.
        well_conditioned: Whether it is known that no system is ill-conditioned.
    """

    frames: tuple[int, ...]
    rectangles: tuple[Rectangle, ...]
    lanes: int
    domain: Array
    values: Array
    graph: RandomWalkGraph
    well_conditioned: bool


def to_lanes(frames: Array, lanes: int, count: int | None = None) -> Array:
    """Interleave frames.

    Args:
        frames: Frames, ``(frames, depth, lateral)``, or ``(1, depth, lateral)`` if they are equal.
        lanes: Number of lanes, at least the number of frames; the values of missing frames are 0.
        count: Number of frames; by default, there are as many as given.

    Returns:
        Values, ``(depth, lateral * lanes)``; a view of the frame if possible, if there is only one lane.
    """
    depth, lateral = frames.shape[1:]
    if lanes == 1:
        return np.ascontiguousarray(frames[0])
    result = np.zeros((depth, lateral, lanes), frames.dtype)
    result[..., : count or len(frames)] = np.moveaxis(frames, 0, -1)
    return result.reshape(depth, lateral * lanes)


def from_lanes(values: Array, lanes: int) -> Array:
    """Return a view of interleaved frames ``(depth, columns * lanes)`` as ``(lanes, depth, columns)``."""
    depth, width = values.shape
    return np.moveaxis(values.reshape(depth, width // lanes, lanes), -1, 0)


def assemble(
    problem: Problem, frames: Sequence[int], rectangles: Sequence[Rectangle], lanes: int, workers: Workers
) -> Group:
    """Assemble the linear systems of frames on the bounding boxes of their domains, which have the same shape.

    Args:
        problem: Checked input of a call of the solver.
        frames: Index of every frame.
        rectangles: Bounding box of every domain.
        lanes: Number of lanes, at least the number of frames.
        workers: Threads.

    Returns:
        The linear systems.
    """
    weight_function = problem.weight_function
    count = len(frames)
    parts = [problem.intensities(problem.frames[(frame, *box)]) for frame, box in zip(frames, rectangles, strict=True)]
    intensities = to_lanes(np.stack(parts), lanes)
    domain, source, sink, reaches_source, reaches_sink = problem.boundary.crop(frames, rectangles)
    virtual = weight_function.formulation == "realtime"
    conditions = boundary_conditions(domain, source, sink, reaches_source, reaches_sink, virtual)
    values, unknown, slack, rhs = (to_lanes(array, lanes, count) for array in conditions)
    inside = to_lanes(domain, lanes, count)
    decay = np.zeros((intensities.shape[0], lanes))
    decay[:, :count] = np.moveaxis(weight_function.decay(domain)[..., 0], 0, -1)

    image = _scale(intensities, inside, decay, weight_function.normalise == "frame", workers)
    scale, penalties = _coefficients(problem, image, inside, lanes)
    depth, width = image.shape
    graph = RandomWalkGraph(
        vertical=np.empty((depth - 1, width)),
        horizontal=np.empty((depth, width - lanes)),
        down_right=np.empty((depth - 1, width - lanes)),
        down_left=np.empty((depth - 1, width - lanes)),
        slack=slack,
        unknown=unknown,
        rhs=rhs,
    )
    floor = EDGE_FLOOR[weight_function.formulation]

    def weigh(rows: tuple[int, int]) -> None:
        exponent, powers = np.empty((2, width))
        bits = powers.view(np.int64)
        _weigh(image, inside, scale, penalties, floor, lanes, graph, rows[0], rows[1], exponent, powers, bits)

    workers.run(weigh, row_blocks(depth, workers))
    _connect_known(inside, values, lanes, graph)
    return Group(
        tuple(frames),
        tuple(rectangles),
        lanes,
        inside,
        values,
        graph,
        # The sum of eight weights is at most 8 (1 + floor), and virtual nodes add 2.
        well_conditioned=floor / (10.0 * (1.0 + floor)) > MIN_WEIGHT_RATIO,
    )


def _scale(intensities: Array, domain: Array, decay: Array, rescale: bool, workers: Workers) -> Array:
    """Scale intensities to the range from 0 to 1 and multiply them by the decay. Set pixels outside the domain to 0."""
    depth, width = intensities.shape
    lanes = decay.shape[1]
    lowest, highest = np.zeros(lanes), np.ones(lanes)
    if rescale:
        by_column = np.empty((2, width))
        _extremes(intensities, domain, by_column)
        lowest, highest = (by_column[k].reshape(-1, lanes) for k in (0, 1))
        lowest, highest = lowest.min(axis=0), highest.max(axis=0)
        constant = ~(highest > lowest)
        lowest[~np.isfinite(lowest)] = 0.0
        highest[constant] = lowest[constant] + 1.0
    offset, factor = (np.tile(row, width // lanes) for row in (lowest, 1.0 / (highest - lowest)))

    def scale(rows: tuple[int, int]) -> None:
        _scale_rows(intensities, domain, offset, factor, decay, *rows)

    workers.run(scale, row_blocks(depth, workers))
    return intensities


def _coefficients(problem: Problem, image: Array, domain: Array, lanes: int) -> tuple[Array, Array]:
    """Return the scale and the penalties of the exponent; see :meth:`WeightFunction.exponent`.

    Returns:
        Scale, ``(width,)``, and penalties by kind of edge, ``(4, width)``, for every column of interleaved frames.
    """
    width = image.shape[1]
    steps = np.zeros((4, width))
    exists = np.zeros((4, width), np.bool_)
    if problem.weight_function.formulation == "reference" and problem.weight_function.normalise == "frame":
        _largest_steps(image, domain, lanes, steps, exists)
    largest = dict(zip(EDGE_ENDS, steps.reshape(4, -1, lanes).max(axis=1), strict=True))
    present = dict(zip(EDGE_ENDS, np.asarray(exists.reshape(4, -1, lanes).any(axis=1)), strict=True))
    scale, penalties = problem.weight_function.exponent(largest, present)
    rows = [np.broadcast_to(np.asarray(row, np.float64), (lanes,)) for row in (scale, *penalties.values())]
    tiled = np.stack([np.tile(row, width // lanes) for row in rows])
    return tiled[0], tiled[1:]


@njit(cache=True, nogil=True)
def _extremes(intensities: Array, domain: Array, result: Array) -> None:
    """Compute the smallest and largest intensity of every column within the domain, ``(2, width)``."""
    result[0] = np.inf
    result[1] = -np.inf
    for row in range(len(intensities)):
        values, inside = intensities[row], domain[row]
        for k in range(len(values)):
            result[0, k] = min(result[0, k], values[k] if inside[k] else np.inf)
            result[1, k] = max(result[1, k], values[k] if inside[k] else -np.inf)


@njit(cache=True, nogil=True)
def _scale_rows(
    intensities: Array, domain: Array, offset: Array, factor: Array, decay: Array, first: int, end: int
) -> None:
    """Scale rows of the intensities in place."""
    lanes = decay.shape[1]
    for row in range(first, end):
        values, inside = intensities[row], domain[row]
        for k in range(len(values)):
            scaled = (values[k] - offset[k]) * factor[k] * decay[row, k % lanes]
            values[k] = scaled if inside[k] else 0.0


@njit(cache=True, nogil=True)
def _largest_steps(image: Array, domain: Array, lanes: int, largest: Array, exists: Array) -> None:
    """Compute the largest difference for each kind of edge and column, and whether such edges exist, ``(4, width)``."""
    depth, width = image.shape
    for kind in range(4):
        down, right = _STEPS[kind]
        count = width - abs(right) * lanes
        start, other_start = (lanes, 0) if right < 0 else (0, right * lanes)
        for row in range(depth - down):
            first = image[row, start : start + count]
            second = image[row + down, other_start : other_start + count]
            first_inside = domain[row, start : start + count]
            second_inside = domain[row + down, other_start : other_start + count]
            row_largest, row_exists = largest[kind], exists[kind]
            for k in range(count):
                both = first_inside[k] & second_inside[k]
                row_exists[k] |= both
                row_largest[k] = max(row_largest[k], abs(first[k] - second[k]) if both else 0.0)


@njit(cache=True, nogil=True)
def _weights_of_kind(graph: RandomWalkGraph, kind: int) -> Array:
    """Return the weights of a kind of edges; kinds are numbered as in EDGE_STEPS."""
    if kind == 0:
        return graph.vertical
    if kind == 1:
        return graph.horizontal
    return graph.down_right if kind == 2 else graph.down_left


@njit(cache=True, nogil=True, fastmath={"contract"})
def _weigh(
    image: Array,
    domain: Array,
    scale: Array,
    penalties: Array,
    floor: float,
    lanes: int,
    graph: RandomWalkGraph,
    first_row: int,
    end_row: int,
    exponent: Array,
    powers: Array,
    bits: Array,
) -> None:
    """Compute the weights of all edges within the domain whose first end is in some rows.

    ``exponent`` and ``powers`` are buffers, ``(width,)``, and ``bits`` is a view of ``powers`` as int64.
    """
    depth, width = image.shape
    for kind in range(4):
        down, right = _STEPS[kind]
        weights = _weights_of_kind(graph, kind)
        count = width - abs(right) * lanes
        start, other_start = (lanes, 0) if right < 0 else (0, right * lanes)
        penalty = penalties[kind]
        for row in range(first_row, min(end_row, depth - down)):
            first = image[row, start : start + count]
            second = image[row + down, other_start : other_start + count]
            for k in range(count):
                exponent[k] = max(-scale[k] * abs(first[k] - second[k]) - penalty[k], _LOWEST)
            target = weights[row]
            _exponential(exponent[:count], powers, bits, target)
            first_inside = domain[row, start : start + count]
            second_inside = domain[row + down, other_start : other_start + count]
            for k in range(count):
                target[k] = target[k] + floor if first_inside[k] & second_inside[k] else 0.0


@njit(cache=True, nogil=True, fastmath={"contract"})
def _exponential(exponent: Array, powers: Array, bits: Array, result: Array) -> None:
    """Compute ``exp(exponent)`` for exponents from _LOWEST to 0, with a relative error of about 2e-16.

    Every loop consists of operations for which there are vector instructions. ``powers`` is a buffer, and ``bits`` is a
    view of it as int64.
    """
    for k in range(len(exponent)):
        powers[k] = exponent[k] * _LOG2_E + _ROUND
    for k in range(len(exponent)):
        multiple = powers[k] - _ROUND
        rest = exponent[k] - multiple * _LN2_HIGH
        rest -= multiple * _LN2_LOW
        value = _TAYLOR[0]
        value = value * rest + _TAYLOR[1]
        value = value * rest + _TAYLOR[2]
        value = value * rest + _TAYLOR[3]
        value = value * rest + _TAYLOR[4]
        value = value * rest + _TAYLOR[5]
        value = value * rest + _TAYLOR[6]
        value = value * rest + _TAYLOR[7]
        value = value * rest + _TAYLOR[8]
        value = value * rest + _TAYLOR[9]
        value = value * rest + _TAYLOR[10]
        value = value * rest + _TAYLOR[11]
        value = value * rest + _TAYLOR[12]
        result[k] = value * rest + _TAYLOR[13]
    for k in range(len(exponent)):
        bits[k] = (bits[k] + 1023) << 52  # the exponent of 2 ** multiple
    for k in range(len(exponent)):
        result[k] *= powers[k]


@njit(cache=True, nogil=True)
def _connect_known(domain: Array, values: Array, lanes: int, graph: RandomWalkGraph) -> None:
    """Move the weights between unknown pixels and pixels with known values to the slack and the right-hand side."""
    depth, width = domain.shape
    for row in range(depth):
        known_pixels = 0
        for column in range(width):
            known_pixels += domain[row, column] & ~graph.unknown[row, column]
        if known_pixels == 0:
            continue
        for column in range(width):
            if not domain[row, column] or graph.unknown[row, column]:
                continue
            for kind in range(4):
                down, right = _STEPS[kind]
                weights = _weights_of_kind(graph, kind)
                for sign in (-1, 1):
                    other_row, other_column = row + sign * down, column + sign * right * lanes
                    if 0 <= other_row < depth and 0 <= other_column < width:
                        upper, left = min(row, other_row), column
                        if right != 0:
                            left = min(column, other_column)
                        weight = weights[upper, left]
                        weights[upper, left] = 0.0
                        if graph.unknown[other_row, other_column]:
                            graph.slack[other_row, other_column] += weight
                            graph.rhs[other_row, other_column] += weight * values[row, column]
