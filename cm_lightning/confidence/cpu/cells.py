"""Elimination of the 7 x 7 cells of a grid, LANES of them at a time, compiled for the CPU.

:mod:`cm_lightning.confidence.pattern` tells what is eliminated from what. Every number is held LANES times, once for
each cell of a batch, so that the compiler turns the innermost loops into single vector instructions.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.lanes import add_product
from cm_lightning.confidence.dissection import LANES
from cm_lightning.confidence.pattern import INNER, PATTERN, RING

Numbers = NDArray[Any]

_ROWS, _COLUMNS, _ROW_START, _NEIGHBOURS, _TARGETS, _EDGES, *_ = PATTERN

FAST = {"contract", "nsz", "arcp", "reassoc", "nnan", "ninf"}
# A ratio of weights below this many times the smallest normal number is dropped: far below rounding, and it keeps the
# arithmetic clear of subnormal numbers, which processors handle a hundred times slower.
ABOVE_SUBNORMAL = 1e8


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
