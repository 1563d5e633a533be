"""Elimination of the 7 x 7 cells of a grid in batches of up to LANES cells, compiled for the CPU.

The sparsity pattern of the elimination, which is the same for all cells, is defined in
:mod:`cm_lightning.confidence.pattern`. Arrays contain one value per cell of the batch along their last axis (lane), so
that the compiler can replace each innermost loop by a single vector instruction.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.lanes import add_product
from cm_lightning.confidence.dissection import LANES
from cm_lightning.confidence.pattern import INNER, PATTERN, RING

Array = NDArray[Any]

_ROWS, _COLUMNS, _ROW_START, _NEIGHBOURS, _TARGETS, _EDGES, *_ = PATTERN

# Fast-math flags of the compiler.
FAST = {"contract", "nsz", "arcp", "reassoc", "nnan", "ninf"}
# Ratios of weights below this multiple of the smallest normal number are replaced by 0. They are far below the rounding
# error, and would lead to subnormal numbers, for which arithmetic is a hundred times slower.
ABOVE_SUBNORMAL = 1e8


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def factorise_cells(
    vertical: Array,
    horizontal: Array,
    down_right: Array,
    down_left: Array,
    slack: Array,
    unknown: Array,
    scale: float,
    corners: Array,
    factor: Array,
    pivot: Array,
    weights: Array,
    slacks: Array,
) -> int:
    """Eliminate a batch of cells.

    Args:
        vertical: Weights as in :class:`cm_lightning.confidence.graph.RandomWalkGraph`, ``(depth - 1, lateral)``.
        horizontal: Weights, ``(depth, lateral - 1)``.
        down_right: Weights, ``(depth - 1, lateral - 1)``.
        down_left: Weights, ``(depth - 1, lateral - 1)``.
        slack: Sum of the weights of each pixel to pixels with known values, ``(depth, lateral)``.
        unknown: Pixels with unknown values, ``(depth, lateral)``.
        scale: Factor of all weights.
        corners: First row and column of each cell, ``(up to LANES, 2)``.
        factor: Output, the weights of each eliminated pixel, divided by the sum of its weights and slack,
            ``(FACTOR, LANES)``.
        pivot: Output, the inverse of this sum, or 0 if it is not positive, ``(INNER, LANES)``.
        weights: Output, ``(WEIGHTS, LANES)``; from index FACTOR, the weights between the pixels of the ring.
        slacks: Output, ``(INNER + RING, LANES)``; from index INNER, the slack of the ring due to the cell.

    Returns:
        Number of unknown pixels without positive weights, for which the system cannot be solved.
    """
    depth, lateral = slack.shape
    zero = factor.dtype.type(0)
    unity = factor.dtype.type(1)
    negligible = np.finfo(factor.dtype).tiny * factor.dtype.type(ABOVE_SUBNORMAL)
    weights[:] = zero
    slacks[:] = zero
    for lane in range(len(corners)):
        first_row = corners[lane, 0] - 1
        first_column = corners[lane, 1] - 1
        for pixel in range(INNER):
            row = first_row + _ROWS[pixel]
            column = first_column + _COLUMNS[pixel]
            if row < depth and column < lateral:
                slacks[pixel, lane] = slack[row, column] * scale
        for edge in range(len(_EDGES)):
            row = first_row + _EDGES[edge, 2]
            column = first_column + _EDGES[edge, 3]
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
            pivot[pixel, lane] = unity / total[lane] if total[lane] > zero else zero
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

    zero_pivots = 0
    for lane in range(len(corners)):
        for pixel in range(INNER):
            if pivot[pixel, lane] == zero:
                row = corners[lane, 0] - 1 + _ROWS[pixel]
                column = corners[lane, 1] - 1 + _COLUMNS[pixel]
                if row < depth and column < lateral and unknown[row, column]:
                    zero_pivots += 1
    return zero_pivots


@njit(cache=True, nogil=True, fastmath=FAST)
def reduce_cells(
    corners: Array, factor: Array, pivot: Array, depth: int, lateral: int, solution: Array, window: Array
) -> None:
    """Apply forward substitution to a batch of cells.

    With the factorisation ``A = L D L^T``, this computes ``z = D^-1 L^-1 b`` at the pixels of the cells, and adds their
    contributions to the right-hand side at the pixels of the rings.

    Args:
        corners: First row and column of each cell, ``(up to LANES, 2)``.
        factor: Factor from :func:`factorise_cells`, ``(FACTOR, LANES)``.
        pivot: Inverse pivots from :func:`factorise_cells`, ``(INNER, LANES)``.
        depth: Number of rows of the grid.
        lateral: Number of columns of the grid.
        solution: Right-hand side ``b``, ``(depth * lateral,)``; changed in place.
        window: Buffer, ``(INNER + RING, LANES)``.
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
def substitute_cells(corners: Array, factor: Array, depth: int, lateral: int, solution: Array, window: Array) -> None:
    """Apply backward substitution to a batch of cells after their rings have been solved.

    Args:
        corners: First row and column of each cell, ``(up to LANES, 2)``.
        factor: Factor from :func:`factorise_cells`, ``(FACTOR, LANES)``.
        depth: Number of rows of the grid.
        lateral: Number of columns of the grid.
        solution: ``z`` from :func:`reduce_cells` at the pixels of the cells, and the solution at the pixels of their
            rings, ``(depth * lateral,)``; changed in place.
        window: Buffer, ``(INNER + RING, LANES)``.
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
