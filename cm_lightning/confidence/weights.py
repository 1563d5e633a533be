"""From one frame to the edge weights of its random walk."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Weight that every edge keeps, however large the step across it. The published MATLAB code and MONAI (>= 1.4) use
# this value; older MONAI used 1e-6, which changes the maps visibly.
EDGE_FLOOR = 1e-5


@dataclass(frozen=True)
class EdgeWeights:
    """Conductances of the 8-neighbour graph on a frame; 0 where an end lies outside the domain.

    Attributes:
        vertical: ``(depth - 1, lateral)``, between a pixel and the one below it.
        horizontal: ``(depth, lateral - 1)``, between a pixel and the one to its right.
        down_right: ``(depth - 1, lateral - 1)``, between a pixel and the one below and to its right.
        down_left: ``(depth - 1, lateral - 1)``, between a pixel and the one below and to its left.
    """

    vertical: FloatArray
    horizontal: FloatArray
    down_right: FloatArray
    down_left: FloatArray


# The two ends of each kind of edge as slices of a (depth, lateral) array, in the order of EdgeWeights' fields.
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
EDGE_ENDS = {
    "vertical": ((_FIRST, _ALL), (_LAST, _ALL)),
    "horizontal": ((_ALL, _FIRST), (_ALL, _LAST)),
    "down_right": ((_FIRST, _FIRST), (_LAST, _LAST)),
    "down_left": ((_FIRST, _LAST), (_LAST, _FIRST)),
}


def edge_weights(frame: FloatArray, domain: BoolArray, alpha: float, beta: float, gamma: float) -> EdgeWeights:
    """Compute the edge weights of the reference formulation.

    What the original MATLAB code of Karamalis et al. 2012 and MONAI's direct solve compute, which differs from the
    printed paper in the sign of the attenuation, in adding the same ``gamma`` to diagonals, and in the floor:

    1. ``g = (I - min) / (max - min)``
    2. ``g *= 1 - exp(-alpha * d)``, with ``d`` from 0 at the first to 1 at the last row of the domain
    3. ``s = |g_i - g_j|`` for every edge, divided by the frame's largest ``s``
    4. ``gamma`` is added to horizontal and diagonal edges, and ``s`` divided by the new largest
    5. ``w = exp(-beta * s) + 1e-5``

    Minimum, maximum, largest step and depth are taken over the domain, so that a frame with black bands has exactly
    the weights of its crop.

    Args:
        frame: Intensities, ``(depth, lateral)``.
        domain: Insonified pixels, same shape, at least one of them true.
        alpha: Attenuation coefficient, per depth of the domain.
        beta: How strongly an intensity step blocks the walk, per largest step of the frame.
        gamma: Penalty on steps that leave the scan line.

    Returns:
        The weights.
    """
    inside = frame[domain]
    lowest, highest = inside.min(), inside.max()
    scale = 1.0 / (highest - lowest) if highest > lowest else 0.0
    image = np.where(domain, (frame - lowest) * scale, 0.0)

    rows = np.flatnonzero(domain.any(axis=1))
    depth = np.zeros(frame.shape[0])
    depth[rows[0] : rows[-1] + 1] = np.linspace(0.0, 1.0, rows[-1] - rows[0] + 1)
    image *= (1.0 - np.exp(-alpha * depth))[:, None]

    present = {name: domain[start] & domain[end] for name, (start, end) in EDGE_ENDS.items()}
    steps = {name: np.abs(image[start] - image[end]) for name, (start, end) in EDGE_ENDS.items()}
    steps = _divide_by_largest(steps, present)
    steps = {name: step if name == "vertical" else step + gamma for name, step in steps.items()}
    steps = _divide_by_largest(steps, present)
    return EdgeWeights(
        **{name: np.where(present[name], np.exp(-beta * step) + EDGE_FLOOR, 0.0) for name, step in steps.items()}
    )


def _divide_by_largest(steps: dict[str, FloatArray], present: dict[str, BoolArray]) -> dict[str, FloatArray]:
    """Scale steps so that the largest one between two pixels of the domain is 1; a flat frame stays 0."""
    largest = max(float(step[present[name]].max(initial=0.0)) for name, step in steps.items())
    return {name: step / largest for name, step in steps.items()} if largest > 0 else steps
