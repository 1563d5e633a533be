"""Accuracy criteria of both engines.

A linear system is solved by conjugate gradients, unless it is ill-conditioned. If the iterative solution is not
accepted, the system is solved directly.
"""

from typing import Any

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph, weight_ratio

# A NumPy or CuPy array.
Array = Any

# Maximum number of steps of conjugate gradients. With the float32 factor as preconditioner, one or two steps are usual.
# If more steps are needed, the factor is not accurate.
MAX_STEPS = 20
# Minimum ratio of the smallest to the largest weight for conjugate gradients. Below it, a residual in float64 cannot
# distinguish correct from wrong maps, because rounding errors within a cluster of pixels exceed the flow into it. Such
# systems, which only occur with the formulation "paper", are solved by the direct method in float64, whose accuracy
# does not depend on this ratio. They are solved twice, the second time with mirrored columns; the difference of the two
# solutions is the error estimate.
MIN_WEIGHT_RATIO = 1e-9
# Fraction of the tolerance at which conjugate gradients stop, because their error is only estimated.
STOPPING_FRACTION = 0.5


def is_ill_conditioned(graph: RandomWalkGraph) -> Array:
    """Return which systems have weights that differ too much for conjugate gradients in float64.

    Args:
        graph: Linear systems, ``(..., depth, lateral)``.

    Returns:
        Mask of the ill-conditioned systems, ``(...)``.
    """
    return weight_ratio(graph) < MIN_WEIGHT_RATIO


def is_accepted(error_estimate: Any, error_bound: Any, tolerance: float) -> Any:
    """Return which iterative solutions are accepted. All others must be computed by the direct solver.

    Args:
        error_estimate: Estimated maximum errors, a number or ``(...)``.
        error_bound: Proven bounds of the maximum errors, a number or ``(...)``; NaN if they were not computed.
        tolerance: Maximum error that is allowed.

    Returns:
        Mask of the accepted solutions, ``(...)``.
    """
    return np.less_equal(error_estimate, tolerance) & ~np.greater(error_bound, tolerance)


def difference_from_mirrored(values: Array, mirrored_values: Array) -> Array:
    """Estimate the errors of direct solutions from solutions of the same systems with mirrored columns.

    Args:
        values: Solutions, ``(..., depth, lateral)``.
        mirrored_values: Solutions of the mirrored systems, ``(..., depth, lateral)``.

    Returns:
        Maximum differences, ``(...)``.
    """
    return np.abs(values - mirrored_values[..., ::-1]).max(axis=(-2, -1))
