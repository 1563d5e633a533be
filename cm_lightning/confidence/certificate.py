"""A bound on the error of a solution that is a proof, rounding included."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph, diagonal

# A NumPy or CuPy array: everything in this module runs on both.
Array = Any
# Both take a vector v, and last a flag for each frame, nonzero where the frame may be left out. The first fills its
# other arguments with A v and the sums of the magnitudes of its terms; the second solves A x = v with the factor.
Multiply = Callable[[Array, Array, Array, Array], None]
Substitute = Callable[[Array, Array], Array]

# Bound on the rounding error of a computed (A x)_i, relative to the sum of its terms' magnitudes: at most 17 roundings
# of 1.1e-16.
ROUNDING = 2e-15
# The same for the few operations that lead from the ratio to the bound.
FINAL_ROUNDING = 1e-12
# Share of the diagonal that is added to the residual, to keep v positive where the residual is exactly 0.
LEAST_RESIDUAL = 1e-17
# Where the residual is all but 0, A v must still stand out from its own rounding, by this many times.
ABOVE_ROUNDING = 100.0
# A v that reaches the residual up to this factor is good enough.
SUFFICIENT_RATIO = 2.0
# Steps of refinement of v.
MOST_REFINEMENTS = 6


def certify(
    graph: RandomWalkGraph, right: Array, x: Array, multiply: Multiply, substitute: Substitute, lost: Array
) -> Array:
    """Bound the largest error of solutions, rounding included.

    ``A`` is a nonsingular M-matrix, so its inverse has no negative entry, and for any ``v > 0`` with ``A v > 0``

        |x - x_exact| <= (max_i |r_i| / (A v)_i) v,    r = b - A x.

    ``v`` is close to ``A^-1 |r|``, which makes the bound nearly tight. What rounding may have done to ``r`` and ``A v``
    is added to the former and taken off the latter.

    Args:
        graph: The systems, ``(..., depth, lateral)``.
        right: ``b``, same shape.
        x: The solutions, float64, same shape, 0 outside the unknown pixels.
        multiply: The engine's product with ``A``, float64.
        substitute: The engine's solve with its factor, in the factor's type.
        lost: Nonzero for frames that have no factor, int32, ``(...)``.

    Returns:
        The bound on ``max |x - x_exact|`` of every frame, ``(...)``; infinite where none could be proven.
    """
    settled = lost
    product, magnitude = np.zeros_like(x), np.zeros_like(x)
    multiply(x, product, magnitude, np.zeros_like(lost))
    target = np.abs(right - product) + ROUNDING * (magnitude + np.abs(right))
    target += LEAST_RESIDUAL * diagonal(graph)
    v, lacking = np.zeros_like(x), target.copy()
    ratio: Array = np.inf
    for _ in range(MOST_REFINEMENTS):
        unsettled = (settled == 0)[..., None, None]
        v += np.where(unsettled, substitute(lacking, settled), 0.0)
        multiply(v, product, magnitude, settled)
        at_least = product - ROUNDING * magnitude
        proven = (at_least > 0.0) & (v > 0.0)
        shares = np.where(proven, target / np.where(proven, at_least, 1.0), np.inf)
        ratio = np.where(settled > 0, ratio, np.where(graph.unknown, shares, 0.0).max(axis=(-2, -1)))
        settled = ((settled > 0) | (ratio <= SUFFICIENT_RATIO)).astype(np.int32)
        if bool(settled.all()):
            break
        target += np.where((settled == 0)[..., None, None], ABOVE_ROUNDING * ROUNDING * magnitude, 0.0)
        np.subtract(target, product, out=lacking)
    bound = np.where(ratio > 0.0, ratio * v.max(axis=(-2, -1)) * (1.0 + FINAL_ROUNDING), 0.0)
    return np.where(np.isfinite(bound), bound, np.inf)
