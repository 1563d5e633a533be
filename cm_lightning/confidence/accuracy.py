"""When a solution is accurate enough: the rules by which both engines decide.

A system is solved by conjugate gradients, unless it is ill-conditioned. If what they give is not accepted, it is solved
directly.
"""

from typing import Any

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph, contrast

# A NumPy or CuPy array.
Array = Any

# With the factor in float32 as preconditioner one or two steps are the rule; after so many something is wrong with it.
MOST_STEPS = 20
# Where the smallest weight is a smaller share of the largest, no residual in float64 can tell a right map from a wrong
# one: what is rounded within a cluster of pixels outweighs all that flows into it. Such a frame (only the paper's
# formulation has them) is eliminated in float64, which does not notice contrast, and once more in mirrored order; the
# difference is the error estimate.
LEAST_CONTRAST = 1e-9
# Share of the tolerance at which conjugate gradients stop: what they go by is an estimate.
STOPPING_SHARE = 0.5


def is_ill_conditioned(graph: RandomWalkGraph) -> Array:
    """Tell which systems have weights that differ by too much for a residual in float64 to mean anything.

    Args:
        graph: The systems, ``(..., depth, lateral)``.

    Returns:
        A flag for each, ``(...)``.
    """
    return contrast(graph) < LEAST_CONTRAST


def is_accepted(error_estimate: Any, error_bound: Any, tolerance: float) -> Any:
    """Tell which iterative solutions are kept; the others are to be solved directly.

    Args:
        error_estimate: Estimated largest error, a number or an array.
        error_bound: Proven largest error, the same; NaN, which is no reason to doubt, where it was not asked for.
        tolerance: Largest error allowed.

    Returns:
        A flag for each solution.
    """
    return np.less_equal(error_estimate, tolerance) & ~np.greater(error_bound, tolerance)


def difference_from_mirrored(values: Array, mirrored_values: Array) -> Array:
    """Estimate the error of a direct solution from that of the same system in mirrored order.

    Args:
        values: Solutions, ``(..., depth, lateral)``.
        mirrored_values: Solutions of the mirrored systems, as they are.

    Returns:
        Largest difference of each, ``(...)``.
    """
    return np.abs(values - mirrored_values[..., ::-1]).max(axis=(-2, -1))
