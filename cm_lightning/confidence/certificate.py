"""Proven bound on the error of a solution, including rounding errors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph, diagonal

# A NumPy or CuPy array. All functions of this module support both.
Array = Any
# The first argument of both is a vector v, and the last one is a flag for each frame, which is nonzero for frames that
# can be skipped. The first function writes A v and the sums of the absolute values of its terms to its other arguments.
# The second function solves A x = v with the factor.
Multiply = Callable[[Array, Array, Array, Array], None]
Substitute = Callable[[Array, Array], Array]

# Bound of the rounding error of a computed (A x)_i, relative to the sum of the absolute values of its terms: at most 17
# roundings of 1.1e-16.
ROUNDING = 2e-15
# Bound of the relative rounding error of the operations from the ratio to the error bound.
FINAL_ROUNDING = 1e-12
# Fraction of the diagonal that is added to the residual, so that v is positive where the residual is 0.
MIN_RESIDUAL = 1e-17
# Minimum ratio of A v to its rounding error where the residual is almost 0.
ABOVE_ROUNDING = 100.0
# Maximum ratio of the residual to A v at which the refinement of v stops.
SUFFICIENT_RATIO = 2.0
# Maximum number of refinements of v.
MAX_REFINEMENTS = 6


def certify(
    graph: RandomWalkGraph, rhs: Array, x: Array, multiply: Multiply, substitute: Substitute, failed: Array
) -> Array:
    """Compute an upper bound of the maximum error of solutions, including rounding errors.

    ``A`` is a nonsingular M-matrix, so its inverse has no negative entries. For any ``v > 0`` with ``A v > 0``::

        |x - x_exact| <= (max_i |r_i| / (A v)_i) v,    r = b - A x.

    The bound is nearly tight, because ``v`` is close to ``A^-1 |r|``. Bounds of the rounding errors are added to
    ``|r|`` and subtracted from ``A v``.

    Args:
        graph: Linear systems, ``(..., depth, lateral)``.
        rhs: Right-hand sides ``b``, ``(..., depth, lateral)``.
        x: Solutions, float64, ``(..., depth, lateral)``, 0 outside the unknown pixels.
        multiply: Function of the engine that multiplies vectors by ``A``, float64.
        substitute: Function of the engine that solves by forward and backward substitution, in the type of the factor.
        failed: Nonzero for frames without a factor, int32, ``(...)``.

    Returns:
        Upper bounds of ``max |x - x_exact|``, ``(...)``; infinite if no bound was found.

    References:
        Rump, "Verification methods: rigorous results using floating-point arithmetic", Acta Numerica 2010, for error
        bounds of linear systems with M-matrices.
    """
    finished = failed
    product, magnitude = np.zeros_like(x), np.zeros_like(x)
    multiply(x, product, magnitude, np.zeros_like(failed))
    target = np.abs(rhs - product) + ROUNDING * (magnitude + np.abs(rhs))
    target += MIN_RESIDUAL * diagonal(graph)
    v, remaining = np.zeros_like(x), target.copy()
    ratio: Array = np.inf
    for _ in range(MAX_REFINEMENTS):
        active = (finished == 0)[..., None, None]
        v += np.where(active, substitute(remaining, finished), 0.0)
        multiply(v, product, magnitude, finished)
        lower_bound = product - ROUNDING * magnitude
        proven = (lower_bound > 0.0) & (v > 0.0)
        ratios = np.where(proven, target / np.where(proven, lower_bound, 1.0), np.inf)
        ratio = np.where(finished > 0, ratio, np.where(graph.unknown, ratios, 0.0).max(axis=(-2, -1)))
        finished = ((finished > 0) | (ratio <= SUFFICIENT_RATIO)).astype(np.int32)
        if bool(finished.all()):
            break
        target += np.where((finished == 0)[..., None, None], ABOVE_ROUNDING * ROUNDING * magnitude, 0.0)
        np.subtract(target, product, out=remaining)
    bound = np.where(ratio > 0.0, ratio * v.max(axis=(-2, -1)) * (1.0 + FINAL_ROUNDING), 0.0)
    return np.where(np.isfinite(bound), bound, np.inf)
