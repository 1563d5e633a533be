"""Elimination of the pivots of a front of a large frame, a dense operation that takes most of the computation time.

A front is stored as one row per pixel, the pivots first. A row consists of the weights to all pixels of the front, of
which only those right of the diagonal are used, and of the slack of the pixel in the last column. The length of a row
in memory (stride) is a multiple of LANES.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.lanes import ABOVE_SUBNORMAL
from cm_lightning.confidence.cpu.vectors import (
    FAST,
    FRONT_ROWS,
    LANES,
    above,
    add_row_1,
    add_row_2,
    add_row_3,
    add_rows_1,
    add_rows_2,
    add_rows_3,
    aligned_empty,
    fill,
    load,
    multiply,
    store,
)

Array = NDArray[Any]

# Number of pivots of a panel, after which all later rows of the front are updated, and number of pivots of a small
# panel, after which the remaining rows of the panel are updated.
PANEL, SMALL_PANEL = 32, 8
# Number of vectors of columns that are updated at a time, so that their ratios stay in the fastest cache.
STRIP = 12


class FrontBuffers(NamedTuple):
    """Buffers of the elimination of fronts.

    Attributes:
        front: Current front, ``((size + FRONT_ROWS) * stride,)`` for the largest front. The last block of rows may
            extend into the additional rows.
        ratios: Ratios of the current panel: vectors of columns, pivots, LANES columns, ``(stride * PANEL,)``.
        weights: Weights of the pivots of the current panel: blocks of rows, pivots, FRONT_ROWS rows, ``(size *
            PANEL,)``.
        values: Vector on the pixels of a front, ``(stride,)``.
    """

    front: Array
    ratios: Array
    weights: Array
    values: Array


@njit(cache=True, nogil=True)
def front_stride(size: int) -> int:
    """Return the length of a row of a front with ``size`` pixels and their slack, a multiple of LANES."""
    return (size + LANES) // LANES * LANES


def make_front_buffers(largest: int, dtype: type[np.floating]) -> FrontBuffers:
    """Allocate buffers.

    Args:
        largest: Number of pixels of the largest front.
        dtype: Type of the factor.

    Returns:
        The buffers.
    """
    stride = front_stride(largest)
    return FrontBuffers(
        front=aligned_empty((largest + FRONT_ROWS) * stride, dtype),
        ratios=aligned_empty(stride * PANEL, dtype),
        weights=np.zeros((largest + 2 * FRONT_ROWS) * PANEL, dtype),
        values=aligned_empty(stride, dtype),
    )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def eliminate_front(size: int, pixels: Array, pivots: int, rows: Array, inverses: Array, buffers: FrontBuffers) -> None:
    """Eliminate the pivots of a front in panels of up to PANEL pivots.

    Args:
        size: Number of pixels of the front.
        pixels: Pixels of the front, ``(size,)``.
        pivots: Number of pivots.
        rows: Output, the weights of each pivot to later pixels, divided by the sum of its weights and slack, ``(pivots
            * (pivots - 1) / 2 + pivots * ring,)``.
        inverses: Output, the inverse of this sum, or 0 if it is not positive, by pixel, ``(frame pixels,)``.
        buffers: Buffers, with the front; changed in place.
    """
    front, ratios = buffers.front, buffers.ratios
    stride = front_stride(size)
    vectors = stride // LANES
    zero, unity = front.dtype.type(0), front.dtype.type(1)
    position = 0
    for begin in range(0, pivots, PANEL):
        end = min(begin + PANEL, pivots)
        for first in range(begin, end, SMALL_PANEL):
            last = min(first + SMALL_PANEL, end)
            for pivot in range(first, last):
                vector = pivot // LANES
                if pivot > first:
                    _update_row(buffers, pivot, stride, vector, vectors, first - begin, pivot - first)
                row = front[pivot * stride : (pivot + 1) * stride]
                total = zero
                for column in range(pivot + 1, size + 1):
                    total += row[column]
                inverse = unity / total if total > zero else zero
                inverses[pixels[pivot]] = inverse
                for column in range(vector * LANES, pivot + 1):
                    row[column] = zero
                _divide(row, inverse, vector, vectors, ratios, pivot - begin)
                _copy_ratios(ratios, pivot, size, pivot - begin, rows[position:])
                position += size - pivot - 1
                _copy_weights(row, pivot, size, buffers.weights, pivot - begin)
            if last < end:
                _update(buffers, size, last, end, first - begin, last - first)
        if end < size:
            _update(buffers, size, end, size, 0, end - begin)


@njit(cache=True, nogil=True, fastmath=FAST)
def _divide(row: Array, inverse: float, first: int, vectors: int, ratios: Array, pivot: int) -> None:
    """Write the ratios of a row, with 0 in place of negligible ones."""
    factor = fill(inverse)
    negligible = fill(row.dtype.type(np.finfo(row.dtype).tiny * ABOVE_SUBNORMAL))
    for vector in range(first, vectors):
        ratio = above(multiply(load(row, vector * LANES), factor), negligible)
        store(ratios, (vector * PANEL + pivot) * LANES, ratio)


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy_ratios(ratios: Array, pivot: int, size: int, panel_pivot: int, rows: Array) -> None:
    """Copy the ratios of a pivot to later pixels to the factor."""
    written = 0
    column = pivot + 1
    while column < size:
        start = (column // LANES * PANEL + panel_pivot) * LANES
        until = min(size, (column // LANES + 1) * LANES)
        if until - column == LANES and written + LANES <= len(rows):
            store(rows, written, load(ratios, start))
        else:
            for lane in range(column % LANES, column % LANES + until - column):
                rows[written + lane - column % LANES] = ratios[start + lane]
        written += until - column
        column = until


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy_weights(row: Array, pivot: int, size: int, weights: Array, panel_pivot: int) -> None:
    """Copy the weights of a pivot to the layout in which blocks of rows are updated."""
    for block in range(pivot // FRONT_ROWS, (size + FRONT_ROWS - 1) // FRONT_ROWS):
        target = (block * PANEL + panel_pivot) * FRONT_ROWS
        for k in range(FRONT_ROWS):
            weights[target + k] = row[block * FRONT_ROWS + k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _update_row(
    buffers: FrontBuffers, row: int, stride: int, vector: int, end: int, panel_pivot: int, pivots: int
) -> None:
    """Add the products of some pivots of the panel to the vectors from ``vector`` to ``end - 1`` of a row.

    These are products of weights and ratios.
    """
    front, weights, ratios = buffers.front, buffers.weights, buffers.ratios
    weight = (row // FRONT_ROWS * PANEL + panel_pivot) * FRONT_ROWS + row % FRONT_ROWS
    step = PANEL * LANES
    while vector < end:
        start, ratio = row * stride + vector * LANES, (vector * PANEL + panel_pivot) * LANES
        if end - vector >= 3:
            add_row_3(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 3
        elif end - vector == 2:
            add_row_2(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 2
        else:
            add_row_1(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _update_rows(
    buffers: FrontBuffers, block: int, stride: int, vector: int, end: int, panel_pivot: int, pivots: int
) -> None:
    """Add the products of some pivots of the panel to the vectors from ``vector`` to ``end - 1`` of FRONT_ROWS rows.

    These are products of weights and ratios.
    """
    front, weights, ratios = buffers.front, buffers.weights, buffers.ratios
    weight = (block * PANEL + panel_pivot) * FRONT_ROWS
    step = PANEL * LANES
    while vector < end:
        start, ratio = block * FRONT_ROWS * stride + vector * LANES, (vector * PANEL + panel_pivot) * LANES
        if end - vector >= 3:
            add_rows_3(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 3
        elif end - vector == 2:
            add_rows_2(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 2
        else:
            add_rows_1(front, start, stride, weights, weight, ratios, ratio, step, pivots)
            vector += 1


@njit(cache=True, nogil=True, fastmath=FAST)
def _update(buffers: FrontBuffers, size: int, first_row: int, end_row: int, panel_pivot: int, pivots: int) -> None:
    """Add products of weights and ratios of some pivots of the panel to the rows from ``first_row`` to ``end_row - 1``.

    Complete vectors are updated, starting with that of the diagonal. The values below the diagonal are not used. A
    block may include rows before ``first_row``, whose pivots have been eliminated, and padding after the last row of
    the front, but no rows from ``end_row`` to the end of the front.
    """
    stride = front_stride(size)
    vectors = stride // LANES
    end_block = (end_row + FRONT_ROWS - 1) // FRONT_ROWS if end_row == size else end_row // FRONT_ROWS
    for strip in range(first_row // LANES, vectors, STRIP):
        end = min(strip + STRIP, vectors)
        for block in range(first_row // FRONT_ROWS, min(end_block, (end * LANES + FRONT_ROWS - 1) // FRONT_ROWS)):
            _update_rows(buffers, block, stride, max(strip, block * FRONT_ROWS // LANES), end, panel_pivot, pivots)
        for row in range(max(end_block * FRONT_ROWS, first_row), end_row):
            _update_row(buffers, row, stride, max(strip, row // LANES), end, panel_pivot, pivots)
