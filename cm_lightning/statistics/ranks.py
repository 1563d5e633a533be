"""Ranks in which values that differ only by rounding errors are ties.

Every test and correlation of this package that uses ranks takes them from here: 0.3 - 0.2 and 0.2 - 0.1 differ by
3e-17, and without rounding they would get different ranks.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# Values are rounded to 2^-30 (about 1e-9) of their scale, and to 2^-20 (about 1e-6) if they are single precision. The
# steps are powers of two, because rounding errors could move a decimal fraction across the middle between two multiples
# of a decimal step.
DOUBLE_BITS = 30
SINGLE_BITS = 20


def snap(values: ArrayLike, scale: float | None = None) -> NDArray[np.float64]:
    """Round values to about 1e-9 of their scale (1e-6 for float32), so that equal values are equal numbers.

    Args:
        values: Values of any shape.
        scale: Largest absolute value of the numbers from which the values were computed. For differences, this is that
            of the minuends and subtrahends. The largest finite absolute value of ``values`` by default.

    Returns:
        Rounded values of the same shape. NaN and infinite values are kept.
    """
    array = np.asarray(values)
    bits = SINGLE_BITS if array.dtype in (np.float32, np.float16) else DOUBLE_BITS
    array = array.astype(np.float64)
    if scale is None:
        scale = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    if scale == 0:
        return array
    step = 2.0 ** (np.ceil(np.log2(scale)) - bits)
    # Adding 0 turns -0 into 0.
    rounded: NDArray[np.float64] = np.round(array / step) * step + 0.0
    return rounded


def difference(values: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """Subtract two arrays, and round the result to the precision of the arrays.

    Args:
        values: Minuends, ``(n,)``.
        baseline: Subtrahends, ``(n,)``.

    Returns:
        Differences, ``(n,)``; exactly 0 where the arrays are equal but for rounding errors.
    """
    first, second = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    both = np.abs(np.concatenate([first.ravel(), second.ravel()]))
    return snap(first - second, float(both[np.isfinite(both)].max(initial=0.0)))


def mid_ranks(values: ArrayLike, axis: int | None = None) -> NDArray[np.float64]:
    """Rank values from 1; ties, also those hidden by rounding errors, get the mean of their ranks.

    Args:
        values: Values of any shape.
        axis: Axis along which values are ranked; all values together by default.

    Returns:
        Ranks, of the shape of ``values``, or ``(n,)`` without an axis.
    """
    ranks: NDArray[np.float64] = stats.rankdata(snap(values), axis=axis)
    return ranks


def rank_columns(values: NDArray[Any], higher_is_better: bool) -> NDArray[np.float64]:
    """Rank the columns of every row, 1 being the best.

    Args:
        values: Values, ``(rows, columns)``.
        higher_is_better: Whether the highest value has rank 1.

    Returns:
        Ranks, ``(rows, columns)``.
    """
    return mid_ranks(-values if higher_is_better else values, axis=1)
