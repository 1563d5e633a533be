"""Elimination of one front's pivots: the dense part, in which most of the time goes.

A front is kept as the upper triangle of the weights between its pixels, pivots first, and their slack in the column
after the last pixel.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.cells import ABOVE_SUBNORMAL, FAST
from cm_lightning.confidence.cpu.memory import COLUMNS, PANEL, Workspace

Numbers = NDArray[Any]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def eliminate_front(
    front: Numbers,
    nodes: Numbers,
    eliminated: int,
    unknown: Numbers,
    factor_rows: Numbers,
    factor_pivots: Numbers,
    work: Workspace,
) -> int:
    """Eliminate a front's pivots, PANEL of them at a time.

    Returns:
        Number of unknown pivots without any weight.
    """
    size, stride = front.shape
    unknown_flat = unknown.ravel()
    multipliers = work.multipliers
    zero = front.dtype.type(0)
    one = front.dtype.type(1)
    tiles = (stride + COLUMNS - 1) // COLUMNS
    lost = 0
    write = 0
    for begin in range(0, eliminated, PANEL):
        end = min(begin + PANEL, eliminated)
        from_column = begin // 8 * 8
        for pivot in range(begin, end):
            # Bring the pivot's row up to date with the panel's earlier pivots.
            for tile in range(from_column // COLUMNS, tiles):
                left = max(tile * COLUMNS, from_column)
                length = min((tile + 1) * COLUMNS, stride) - left
                row = front[pivot, left : left + length]
                for earlier in range(begin, pivot):
                    offset = (earlier - begin) * COLUMNS + left - tile * COLUMNS
                    add_multiple(row, multipliers[tile, offset : offset + length], front[earlier, pivot])
            total = zero
            rest = front[pivot, pivot + 1 : size + 1]
            for j in range(len(rest)):
                total += rest[j]
            inverse = zero
            if total > zero:
                inverse = one / total
            elif unknown_flat[nodes[pivot]]:
                lost += 1
            factor_pivots[nodes[pivot]] = inverse
            for tile in range(from_column // COLUMNS, tiles):
                left = max(tile * COLUMNS, from_column)
                length = min((tile + 1) * COLUMNS, stride) - left
                offset = (pivot - begin) * COLUMNS + left - tile * COLUMNS
                ratios = multipliers[tile, offset : offset + length]
                _divide(front[pivot, left : left + length], inverse, ratios)
                first = max(left, pivot + 1)
                count = min(left + length, size) - first
                if count > 0:
                    _copy(ratios[first - left :], factor_rows[write + first - pivot - 1 :], count)
            write += size - pivot - 1
        for pivot in range(end, begin + PANEL):  # what an earlier front left there must not count
            for tile in range(tiles):
                offset = (pivot - begin) * COLUMNS
                multipliers[tile, offset : offset + min(COLUMNS, stride - tile * COLUMNS)] = zero
        _update(front, begin, end, size, multipliers, work.panel_rows)
    return lost


@njit(cache=True, nogil=True, fastmath=FAST)
def add_multiple(target: Numbers, source: Numbers, weight: float) -> None:
    """Compute ``target += weight * source``."""
    for j in range(len(target)):
        target[j] += weight * source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy(source: Numbers, target: Numbers, count: int) -> None:
    """Compute ``target[:count] = source[:count]``."""
    for j in range(count):
        target[j] = source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _divide(row: Numbers, inverse: float, target: Numbers) -> None:
    """Divide a row by its pivot."""
    negligible = np.finfo(row.dtype).tiny * row.dtype.type(ABOVE_SUBNORMAL)
    for j in range(len(target)):
        ratio = row[j] * inverse
        target[j] = ratio if ratio > negligible else row.dtype.type(0)


@njit(cache=True, nogil=True, fastmath=FAST)
def _update(front: Numbers, begin: int, end: int, size: int, multipliers: Numbers, panel_rows: Numbers) -> None:
    """Reconnect the pixels that stay: ``w_ij += sum_p w_pi w_pj / d_p`` over the pivots ``begin`` to ``end``.

    Two rows at a time, from the last multiple of 8 columns before the diagonal on: what is added below the diagonal is
    never read, and whole vectors are faster than exact triangles.
    """
    stride = front.shape[1]
    zero = front.dtype.type(0)
    panel_rows[:] = zero
    for tile in range(end // 8 * 8 // COLUMNS, (stride + COLUMNS - 1) // COLUMNS):
        right = min((tile + 1) * COLUMNS, stride)
        for i in range(end, size, 2):
            left = max(tile * COLUMNS, i // 8 * 8)
            if left >= right:
                break
            second = min(i + 1, size - 1)
            for pivot in range(begin, end):
                panel_rows[0, pivot - begin] = front[pivot, i]
                panel_rows[1, pivot - begin] = front[pivot, second] if second > i else zero
            _update_rows(
                front[i, left:],
                front[second, left:],
                multipliers[tile, left - tile * COLUMNS :],
                panel_rows,
                right - left,
            )


@njit(cache=True, nogil=True, fastmath=FAST)
def _update_rows(first: Numbers, second: Numbers, multiplier: Numbers, panel_rows: Numbers, length: int) -> None:
    """Add PANEL multiples to two rows; written out, because the compiler vectorises it only so."""
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
