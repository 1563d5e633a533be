"""Elimination of the 7 x 7 cells of a grid, LANES of them at a time, compiled for the CPU.

A cell is seen through a window of 9 x 9 pixels: its own 49, which are eliminated, and the ring of 32 around them. The
order within the cell is a nested dissection again, and which weights become nonzero on the way is worked out once, when
this module is imported. Every number is then held LANES times, once for each cell of a batch, so that the compiler
turns the innermost loops into single vector instructions. A pixel that a border cell lacks has no weight to any other
and drops out by itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.lanes import LANES, add_product
from cm_lightning.confidence.dissection import CELL

Numbers = NDArray[Any]

WINDOW = CELL + 2
FAST = {"contract", "nsz", "arcp", "reassoc", "nnan", "ninf"}
# A ratio of weights below this many times the smallest normal number is dropped: far below rounding, and it keeps the
# arithmetic clear of subnormal numbers, which processors handle a hundred times slower.
ABOVE_SUBNORMAL = 1e8


class Pattern(NamedTuple):
    """Which weights of a window are nonzero at some time during its elimination.

    Positions number the window's pixels in the order of elimination, the ring last.

    Attributes:
        rows: Window row of each position.
        columns: Window column of each position.
        row_start: Where each eliminated pixel's weights begin; the weights between ring pixels follow.
        neighbours: Position of the other pixel of each weight.
        targets: For every eliminated pixel, for each pair of its neighbours (first < second), the weight that grows.
        edges: For each edge of the graph: its weight, its kind (0 vertical, 1 horizontal, 2 down right, 3 down left),
            and its row and column in that kind's array relative to the window's.
        ring_first: For the weights between ring pixels, the first pixel's place in the ring.
        ring_second: The second's.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    row_start: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    targets: NDArray[np.int64]
    edges: NDArray[np.int64]
    ring_first: NDArray[np.int64]
    ring_second: NDArray[np.int64]


def _order(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
    """Order a rectangle's pixels by nested dissection."""
    high, wide = bottom - top, right - left
    if high * wide <= 2:
        return [(row, column) for row in range(top, bottom) for column in range(left, right)]
    if high >= wide:
        middle = top + (high - 1) // 2
        line = [(middle, column) for column in range(left, right)]
        return _order(top, middle, left, right) + _order(middle + 1, bottom, left, right) + line
    middle = left + (wide - 1) // 2
    line = [(row, middle) for row in range(top, bottom)]
    return _order(top, bottom, left, middle) + _order(top, bottom, middle + 1, right) + line


def _work_out_pattern() -> Pattern:
    """Eliminate a window symbolically."""
    pixels = _order(1, CELL + 1, 1, CELL + 1)
    pixels += [
        (row, column)
        for row in range(WINDOW)
        for column in range(WINDOW)
        if row in (0, WINDOW - 1) or column in (0, WINDOW - 1)
    ]
    position = {pixel: number for number, pixel in enumerate(pixels)}
    inner, total = CELL * CELL, WINDOW * WINDOW

    # The edges, with the pixel whose row and column address them in cm_lightning.confidence.weights.EdgeWeights.
    edges = []
    for row, column in pixels:
        for kind, (down, right) in enumerate([(1, 0), (0, 1), (1, 1), (1, -1)]):
            other = (row + down, column + right)
            if other in position and min(position[row, column], position[other]) < inner:
                first, second = sorted((position[row, column], position[other]))
                edges.append(((first, second), kind, row, min(column, other[1])))

    later: list[set[int]] = [set() for _ in range(total)]
    for (first, second), *_ in edges:
        later[first].add(second)
    for pixel in range(inner):
        for neighbour in later[pixel]:
            later[neighbour] |= {other for other in later[pixel] if other > neighbour}

    place: dict[tuple[int, int], int] = {}
    row_start = [0]
    for pixel in range(total):
        for neighbour in sorted(later[pixel]):
            place[pixel, neighbour] = len(place)
        row_start.append(len(place))
    targets = [
        place[first, second]
        for pixel in range(inner)
        for first in sorted(later[pixel])
        for second in sorted(later[pixel])
        if first < second
    ]
    between_ring = [pair for pair in place if pair[0] >= inner]
    return Pattern(
        rows=np.array([row for row, _ in pixels]),
        columns=np.array([column for _, column in pixels]),
        row_start=np.array(row_start[: inner + 1]),
        neighbours=np.array([second for _, second in place]),
        targets=np.array(targets),
        edges=np.array([(place[pair], kind, row, column) for pair, kind, row, column in edges]),
        ring_first=np.array([first - inner for first, _ in between_ring]),
        ring_second=np.array([second - inner for _, second in between_ring]),
    )


PATTERN = _work_out_pattern()
_ROWS, _COLUMNS, _ROW_START, _NEIGHBOURS, _TARGETS, _EDGES, RING_FIRST, RING_SECOND = PATTERN

INNER = CELL * CELL
RING = WINDOW * WINDOW - INNER
# Numbers per lane: all weights of a window, and those of the eliminated pixels, which are the cell's factor.
WEIGHTS = len(_NEIGHBOURS)
FACTOR = int(_ROW_START[-1])


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def factorise_cells(
    vertical: Numbers,
    horizontal: Numbers,
    down_right: Numbers,
    down_left: Numbers,
    slack: Numbers,
    unknown: Numbers,
    scale: float,
    corners: Numbers,
    factor: Numbers,
    pivot: Numbers,
    weights: Numbers,
    slacks: Numbers,
) -> int:
    """Eliminate a batch of cells.

    Args:
        vertical: Weights as in :class:`cm_lightning.confidence.weights.EdgeWeights`, 0 at pixels of known value.
        horizontal: The same.
        down_right: The same.
        down_left: The same.
        slack: Sum of each pixel's weights to pixels of known value, ``(depth, lateral)``.
        unknown: Pixels to solve for, ``(depth, lateral)``.
        scale: Factor on all weights.
        corners: First row and column of each cell, ``(up to LANES, 2)``.
        factor: Filled with each eliminated pixel's weights divided by their sum, ``(FACTOR, LANES)``.
        pivot: Filled with the inverse of that sum, or 0 for a pixel without any weight, ``(INNER, LANES)``.
        weights: Filled; from FACTOR on it holds the weights left between the pixels of the ring, ``(WEIGHTS, LANES)``.
        slacks: Filled; from INNER on it holds the ring's slack that came from the cell, ``(INNER + RING, LANES)``.

    Returns:
        Number of unknown pixels whose weights all vanished.
    """
    depth, lateral = slack.shape
    zero = factor.dtype.type(0)
    one = factor.dtype.type(1)
    negligible = np.finfo(factor.dtype).tiny * factor.dtype.type(ABOVE_SUBNORMAL)
    weights[:] = zero
    slacks[:] = zero
    for lane in range(len(corners)):
        top = corners[lane, 0] - 1
        left = corners[lane, 1] - 1
        for pixel in range(INNER):
            row = top + _ROWS[pixel]
            column = left + _COLUMNS[pixel]
            if row < depth and column < lateral:
                slacks[pixel, lane] = slack[row, column] * scale
        for edge in range(len(_EDGES)):
            row = top + _EDGES[edge, 2]
            column = left + _EDGES[edge, 3]
            kind = _EDGES[edge, 1]
            if row >= 0 and column >= 0:
                weight = 0.0
                if kind == 0:
                    if row + 1 < depth and column < lateral:
                        weight = vertical[row, column]
                elif kind == 1:
                    if row < depth and column + 1 < lateral:
                        weight = horizontal[row, column]
                elif row + 1 < depth and column + 1 < lateral:
                    weight = down_right[row, column] if kind == 2 else down_left[row, column]
                weights[_EDGES[edge, 0], lane] = weight * scale

    target = 0
    total = np.empty(LANES, factor.dtype)
    for pixel in range(INNER):
        begin = _ROW_START[pixel]
        end = _ROW_START[pixel + 1]
        for lane in range(LANES):
            total[lane] = slacks[pixel, lane]
        for index in range(begin, end):
            for lane in range(LANES):
                total[lane] += weights[index, lane]
        for lane in range(LANES):
            pivot[pixel, lane] = one / total[lane] if total[lane] > zero else zero
        for index in range(begin, end):
            for lane in range(LANES):
                ratio = weights[index, lane] * pivot[pixel, lane]
                factor[index, lane] = ratio if ratio > negligible else zero
        for first in range(begin, end):
            neighbour = _NEIGHBOURS[first]
            add_product(slacks, neighbour, factor, first, slacks, pixel)
            for second in range(first + 1, end):
                add_product(weights, _TARGETS[target], weights, first, factor, second)
                target += 1

    lost = 0
    for lane in range(len(corners)):
        for pixel in range(INNER):
            if pivot[pixel, lane] == zero:
                row = corners[lane, 0] - 1 + _ROWS[pixel]
                column = corners[lane, 1] - 1 + _COLUMNS[pixel]
                if row < depth and column < lateral and unknown[row, column]:
                    lost += 1
    return lost


@njit(cache=True, nogil=True, fastmath=FAST)
def ring_pixels(row: int, column: int, depth: int, lateral: int, pixels: Numbers) -> None:
    """List the row-major numbers of the pixels around a cell, -1 outside the grid."""
    for index in range(RING):
        r = row - 1 + _ROWS[INNER + index]
        c = column - 1 + _COLUMNS[INNER + index]
        inside = r >= 0 and c >= 0 and r < depth and c < lateral
        pixels[index] = r * lateral + c if inside else -1


@njit(cache=True, nogil=True, fastmath=FAST)
def reduce_cells(
    corners: Numbers, factor: Numbers, pivot: Numbers, depth: int, lateral: int, solution: Numbers, window: Numbers
) -> None:
    """Forward substitution of a batch: on its cells' pixels leave ``z``, and carry their share to the rings.

    Args:
        corners: As for :func:`factorise_cells`.
        factor: The same.
        pivot: The same.
        depth: Rows of the grid.
        lateral: Columns of the grid.
        solution: Right-hand side, ``(depth * lateral,)``; changed.
        window: Buffer ``(INNER + RING, LANES)``.
    """
    window[:] = 0
    for lane in range(len(corners)):
        for pixel in range(INNER):
            row = corners[lane, 0] - 1 + _ROWS[pixel]
            column = corners[lane, 1] - 1 + _COLUMNS[pixel]
            if row < depth and column < lateral:
                window[pixel, lane] = solution[row * lateral + column]
    for pixel in range(INNER):
        for index in range(_ROW_START[pixel], _ROW_START[pixel + 1]):
            add_product(window, _NEIGHBOURS[index], factor, index, window, pixel)
        for lane in range(LANES):
            window[pixel, lane] *= pivot[pixel, lane]
    for lane in range(len(corners)):
        for pixel in range(INNER + RING):
            row = corners[lane, 0] - 1 + _ROWS[pixel]
            column = corners[lane, 1] - 1 + _COLUMNS[pixel]
            if row >= 0 and column >= 0 and row < depth and column < lateral:
                if pixel < INNER:
                    solution[row * lateral + column] = window[pixel, lane]
                else:
                    solution[row * lateral + column] += window[pixel, lane]


@njit(cache=True, nogil=True, fastmath=FAST)
def substitute_cells(
    corners: Numbers, factor: Numbers, depth: int, lateral: int, solution: Numbers, window: Numbers
) -> None:
    """Backward substitution of a batch, once the rings are solved.

    Args:
        corners: As for :func:`factorise_cells`.
        factor: The same.
        depth: Rows of the grid.
        lateral: Columns of the grid.
        solution: ``z`` on the cells' pixels, the solution on their rings, ``(depth * lateral,)``; changed.
        window: Buffer ``(INNER + RING, LANES)``.
    """
    window[:] = 0
    for lane in range(len(corners)):
        for pixel in range(INNER + RING):
            row = corners[lane, 0] - 1 + _ROWS[pixel]
            column = corners[lane, 1] - 1 + _COLUMNS[pixel]
            if row >= 0 and column >= 0 and row < depth and column < lateral:
                window[pixel, lane] = solution[row * lateral + column]
    for pixel in range(INNER - 1, -1, -1):
        for index in range(_ROW_START[pixel], _ROW_START[pixel + 1]):
            add_product(window, pixel, factor, index, window, _NEIGHBOURS[index])
    for lane in range(len(corners)):
        for pixel in range(INNER):
            row = corners[lane, 0] - 1 + _ROWS[pixel]
            column = corners[lane, 1] - 1 + _COLUMNS[pixel]
            if row < depth and column < lateral:
                solution[row * lateral + column] = window[pixel, lane]
