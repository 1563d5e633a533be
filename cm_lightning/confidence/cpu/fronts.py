"""Elimination of the pivots of a front, a dense operation that takes most of the computation time.

A front is stored as the upper triangle of the weights between its pixels, starting with the pivots, followed by one
column with the slack of the pixels.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.cells import ABOVE_SUBNORMAL, FAST
from cm_lightning.confidence.cpu.memory import COLUMNS, PANEL, Workspace

Array = NDArray[Any]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def eliminate_front(
    front: Array,
    nodes: Array,
    pivots: int,
    unknown: Array,
    factor_rows: Array,
    factor_pivots: Array,
    work: Workspace,
) -> int:
    """Eliminate the pivots of a front in panels of up to PANEL pivots.

    Args:
        front: Front, ``(size, front_stride(size))``; changed in place.
        nodes: Row-major indices of the pixels of the front, ``(size,)``.
        pivots: Number of pivots.
        unknown: Pixels with unknown values, ``(depth, lateral)``.
        factor_rows: Output, the weights of each pivot to later pixels, divided by the sum of its weights and slack.
        factor_pivots: Output, the inverse of this sum, or 0 if it is not positive, by pixel, ``(pixels,)``.
        work: Buffers of the thread.

    Returns:
        Number of unknown pivots without positive weights, for which the system cannot be solved.
    """
    size, stride = front.shape
    unknown_flat = unknown.ravel()
    multipliers = work.multipliers
    zero = front.dtype.type(0)
    unity = front.dtype.type(1)
    tiles = (stride + COLUMNS - 1) // COLUMNS
    zero_pivots = 0
    factor_position = 0
    for begin in range(0, pivots, PANEL):
        end = min(begin + PANEL, pivots)
        first_column = begin // 8 * 8
        for pivot in range(begin, end):
            # Update the row of the pivot by the earlier pivots of the panel.
            for tile in range(first_column // COLUMNS, tiles):
                start = max(tile * COLUMNS, first_column)
                length = min((tile + 1) * COLUMNS, stride) - start
                row = front[pivot, start : start + length]
                for earlier in range(begin, pivot):
                    offset = (earlier - begin) * COLUMNS + start - tile * COLUMNS
                    add_multiple(row, multipliers[tile, offset : offset + length], front[earlier, pivot])
            total = zero
            remaining = front[pivot, pivot + 1 : size + 1]
            for j in range(len(remaining)):
                total += remaining[j]
            inverse = zero
            if total > zero:
                inverse = unity / total
            elif unknown_flat[nodes[pivot]]:
                zero_pivots += 1
            factor_pivots[nodes[pivot]] = inverse
            for tile in range(first_column // COLUMNS, tiles):
                start = max(tile * COLUMNS, first_column)
                length = min((tile + 1) * COLUMNS, stride) - start
                offset = (pivot - begin) * COLUMNS + start - tile * COLUMNS
                ratios = multipliers[tile, offset : offset + length]
                _divide(front[pivot, start : start + length], inverse, ratios)
                first = max(start, pivot + 1)
                count = min(start + length, size) - first
                if count > 0:
                    _copy(ratios[first - start :], factor_rows[factor_position + first - pivot - 1 :], count)
            factor_position += size - pivot - 1
        # Rows of multipliers that the last panel does not use may contain values of an earlier front.
        for pivot in range(end, begin + PANEL):
            for tile in range(tiles):
                offset = (pivot - begin) * COLUMNS
                multipliers[tile, offset : offset + min(COLUMNS, stride - tile * COLUMNS)] = zero
        _update(front, begin, end, size, multipliers, work.panel_rows)
    return zero_pivots


@njit(cache=True, nogil=True, fastmath=FAST)
def add_multiple(target: Array, source: Array, weight: float) -> None:
    """Compute ``target += weight * source``."""
    for j in range(len(target)):
        target[j] += weight * source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy(source: Array, target: Array, count: int) -> None:
    """Compute ``target[:count] = source[:count]``."""
    for j in range(count):
        target[j] = source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _divide(row: Array, inverse: float, target: Array) -> None:
    """Multiply a row by the inverse of its pivot, and replace negligible ratios by 0."""
    negligible = np.finfo(row.dtype).tiny * row.dtype.type(ABOVE_SUBNORMAL)
    for j in range(len(target)):
        ratio = row[j] * inverse
        target[j] = ratio if ratio > negligible else row.dtype.type(0)


@njit(cache=True, nogil=True, fastmath=FAST)
def _update(front: Array, begin: int, end: int, size: int, multipliers: Array, panel_rows: Array) -> None:
    """Compute ``w_ij += sum_p w_pi w_pj / d_p`` for the later pixels, with the pivots from ``begin`` to ``end - 1``.

    Two rows are updated at a time. Columns start at the last multiple of 8 before the diagonal, because complete
    vectors are faster than an exact triangle. The values below the diagonal are not used.
    """
    stride = front.shape[1]
    zero = front.dtype.type(0)
    panel_rows[:] = zero
    for tile in range(end // 8 * 8 // COLUMNS, (stride + COLUMNS - 1) // COLUMNS):
        stop = min((tile + 1) * COLUMNS, stride)
        for i in range(end, size, 2):
            start = max(tile * COLUMNS, i // 8 * 8)
            if start >= stop:
                break
            second = min(i + 1, size - 1)
            for pivot in range(begin, end):
                panel_rows[0, pivot - begin] = front[pivot, i]
                panel_rows[1, pivot - begin] = front[pivot, second] if second > i else zero
            _update_rows(
                front[i, start:],
                front[second, start:],
                multipliers[tile, start - tile * COLUMNS :],
                panel_rows,
                stop - start,
            )


@njit(cache=True, nogil=True, fastmath=FAST)
def _update_rows(first: Array, second: Array, multiplier: Array, panel_rows: Array, length: int) -> None:
    """Add PANEL multiples to two rows. The compiler does not vectorise this if it is written as a loop."""
    for j in range(length):
        m0 = multiplier[j]
        m1 = multiplier[COLUMNS + j]
        m2 = multiplier[2 * COLUMNS + j]
        m3 = multiplier[3 * COLUMNS + j]
        m4 = multiplier[4 * COLUMNS + j]
        m5 = multiplier[5 * COLUMNS + j]
        m6 = multiplier[6 * COLUMNS + j]
        m7 = multiplier[7 * COLUMNS + j]
        first[j] += (
            panel_rows[0, 0] * m0 + panel_rows[0, 1] * m1 + panel_rows[0, 2] * m2 + panel_rows[0, 3] * m3
            + panel_rows[0, 4] * m4 + panel_rows[0, 5] * m5 + panel_rows[0, 6] * m6 + panel_rows[0, 7] * m7
        )  # fmt: skip
        second[j] += (
            panel_rows[1, 0] * m0 + panel_rows[1, 1] * m1 + panel_rows[1, 2] * m2 + panel_rows[1, 3] * m3
            + panel_rows[1, 4] * m4 + panel_rows[1, 5] * m5 + panel_rows[1, 6] * m6 + panel_rows[1, 7] * m7
        )  # fmt: skip
