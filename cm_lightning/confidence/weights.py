"""From frames to the edge weights of their random walks."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Formulation = Literal["reference", "paper", "realtime"]
Normalise = Literal["frame", "fixed"]

# A NumPy or CuPy array: everything here runs on both.
Array = Any

# Weight that every edge keeps, however large the step across it. The published MATLAB code and MONAI (>= 1.4) use
# 1e-5 (older MONAI used 1e-6, which changes the maps visibly), CAMPVis 1e-4. The paper has none: there, weights only
# are kept from vanishing in the arithmetic.
EDGE_FLOOR: dict[Formulation, float] = {"reference": 1e-5, "paper": 1e-100, "realtime": 1e-4}


@dataclass(frozen=True)
class EdgeWeights:
    """Conductances of the 8-neighbour graphs on frames; 0 where an end lies outside the domain.

    Attributes:
        vertical: ``(..., depth - 1, lateral)``, between a pixel and the one below it.
        horizontal: ``(..., depth, lateral - 1)``, between a pixel and the one to its right.
        down_right: ``(..., depth - 1, lateral - 1)``, between a pixel and the one below and to its right.
        down_left: ``(..., depth - 1, lateral - 1)``, between a pixel's right neighbour and the pixel below it.
    """

    vertical: Array
    horizontal: Array
    down_right: Array
    down_left: Array


# The two ends of each kind of edge as slices of a (..., depth, lateral) array, in the order of EdgeWeights' fields.
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
EDGE_ENDS = {
    "vertical": ((..., _FIRST, _ALL), (..., _LAST, _ALL)),
    "horizontal": ((..., _ALL, _FIRST), (..., _ALL, _LAST)),
    "down_right": ((..., _FIRST, _FIRST), (..., _LAST, _LAST)),
    "down_left": ((..., _FIRST, _LAST), (..., _LAST, _FIRST)),
}
# How far down and to the right the other end lies, in the same order.
EDGE_STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))


@dataclass(frozen=True)
class WeightFunction:
    """How a frame's intensities become edge weights.

    ``reference`` is what the original MATLAB code of Karamalis et al. 2012 and MONAI's direct solve compute:

    1. ``g = (I - min) / (max - min)``
    2. ``g *= 1 - exp(-alpha * d)``, with ``d`` from 0 at the first to 1 at the last row of the domain
    3. ``s = |g_i - g_j|`` for every edge, divided by the frame's largest ``s``
    4. ``s += gamma`` on horizontal and diagonal edges, then divided by the new largest
    5. ``w = exp(-beta * s) + 1e-5``

    ``paper`` is what Karamalis et al. 2012 print: step 1, ``g *= exp(-alpha * d)``, ``s = |g_i - g_j|``, plus ``gamma``
    on horizontal and ``sqrt(2) * gamma`` on diagonal edges, ``w = exp(-beta * s)``; no step is rescaled and no weight
    has a floor (but 1e-100, for the arithmetic's sake).

    ``realtime`` is what CAMPVis (Schulte zu Berge et al. 2014) computes: the attenuation of step 2, the penalties of
    ``paper``, ``w = exp(-beta * s) + 1e-4``, steps not rescaled.

    With ``normalise="frame"`` minimum, maximum and largest step are taken over a frame's domain, so that a frame with
    black bands has exactly the weights of its crop. With ``normalise="fixed"`` intensities are on a fixed scale from 0
    to 1 (integers are divided by their type's largest value beforehand), and neither they nor the steps are rescaled:
    one bright mark then changes nothing elsewhere, the maps of a sequence are comparable, and they are differentiable.

    Attributes:
        formulation: The formula.
        normalise: Whether intensities and steps are rescaled by what is found in the frame.
        alpha: Attenuation coefficient, per depth of the domain.
        beta: How strongly an intensity step blocks the walk.
        gamma: Penalty on steps that leave the scan line.
    """

    formulation: Formulation
    normalise: Normalise
    alpha: float
    beta: float
    gamma: float

    def __call__(self, frames: Array, domain: Array) -> EdgeWeights:
        """Compute the edge weights.

        Args:
            frames: Intensities, float64, ``(..., depth, lateral)``.
            domain: Insonified pixels, same shape; at least one in every frame.

        Returns:
            The weights.
        """
        image = self._intensity(frames, domain) * self.decay(domain)
        present = {name: domain[start] & domain[end] for name, (start, end) in EDGE_ENDS.items()}
        steps = {}
        for name, (start, end) in EDGE_ENDS.items():
            step = image[start] - image[end]
            np.abs(step, out=step)
            step *= present[name]
            steps[name] = step
        axes = (-2, -1)
        scale, penalties = self.exponent(
            {name: _maximum(step) for name, step in steps.items()},
            {name: mask.any(axis=axes, keepdims=True) for name, mask in present.items()},
        )
        weights = {}
        for name, step in steps.items():
            step *= -scale
            step -= penalties[name]
            np.exp(step, out=step)
            step += EDGE_FLOOR[self.formulation]
            step *= present[name]
            weights[name] = step
        return EdgeWeights(**weights)

    def gradient(self, frames: Array, domain: Array, weight_gradients: EdgeWeights) -> Array:
        """Carry a gradient from the weights to the intensities; only for ``normalise="fixed"``.

        Args:
            frames: As given to the call.
            domain: The same.
            weight_gradients: Derivatives of something by each weight.

        Returns:
            Its derivatives by each intensity, ``(..., depth, lateral)``.
        """
        attenuation = self.decay(domain)
        image = frames * attenuation
        weights = self(frames, domain)
        result = np.zeros_like(image)
        for name, (start, end) in EDGE_ENDS.items():
            weight = getattr(weights, name)
            slope = -self.beta * (weight - EDGE_FLOOR[self.formulation] * (weight > 0))
            slope = slope * np.sign(image[start] - image[end]) * getattr(weight_gradients, name)
            result[start] += slope
            result[end] -= slope
        return result * attenuation

    def _intensity(self, frames: Array, domain: Array) -> Array:
        """Bring intensities to 0 to 1."""
        if self.normalise == "fixed":
            return np.where(domain, frames, 0.0)
        lowest = np.where(domain, frames, np.inf).min(axis=(-2, -1), keepdims=True)
        highest = np.where(domain, frames, -np.inf).max(axis=(-2, -1), keepdims=True)
        image = np.where(domain, frames - lowest, 0.0)
        image /= np.where(highest > lowest, highest - lowest, 1.0)
        return image

    def decay(self, domain: Array) -> Array:
        """Give the weight of intensities at each depth.

        Args:
            domain: Insonified pixels, ``(..., depth, lateral)``.

        Returns:
            Weights, ``(..., depth, 1)``.
        """
        depth = domain.shape[-2]
        rows = domain.any(axis=-1)
        first = rows.argmax(axis=-1)[..., None]
        last = depth - 1 - rows[..., ::-1].argmax(axis=-1)[..., None]
        row = np.cumsum(np.ones_like(rows, dtype=np.float64), axis=-1) - 1.0
        depths = (row - first) / np.maximum(last - first, 1)
        decay = np.exp(-self.alpha * np.clip(depths, 0.0, 1.0))[..., None]
        return decay if self.formulation == "paper" else 1.0 - decay

    def exponent(self, largest: dict[str, Array], exists: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """Give the numbers in ``w = exp(-scale * |g_i - g_j| - penalty) + floor``.

        Args:
            largest: Largest ``|g_i - g_j|`` of each kind of edge.
            exists: Whether there is such an edge.

        Returns:
            The scale, and the penalty of each kind of edge.
        """
        if self.formulation != "reference":
            diagonal = float(np.sqrt(2.0)) * self.beta * self.gamma
            penalties = {"vertical": 0.0, "horizontal": self.beta * self.gamma}
            return self.beta, {**penalties, "down_right": diagonal, "down_left": diagonal}
        if self.normalise == "fixed":
            penalty = self.beta * self.gamma
            return self.beta, {name: 0.0 if name == "vertical" else penalty for name in largest}
        overall = np.maximum(
            np.maximum(largest["vertical"], largest["horizontal"]),
            np.maximum(largest["down_right"], largest["down_left"]),
        )
        overall = np.where(overall > 0, overall, 1.0)
        raised = largest["vertical"] / overall
        for name in ("horizontal", "down_right", "down_left"):
            raised = np.maximum(raised, (largest[name] / overall + self.gamma) * exists[name])
        raised = np.where(raised > 0, raised, 1.0)
        off_line = self.beta * self.gamma / raised
        return self.beta / (overall * raised), {name: 0.0 if name == "vertical" else off_line for name in largest}


def _maximum(steps: Array) -> Array:
    """Find each frame's largest step, ``(..., 1, 1)``; 0 where a frame has no such edge."""
    if 0 in steps.shape[-2:]:
        return np.zeros_like(steps, shape=(*steps.shape[:-2], 1, 1))
    return steps.max(axis=(-2, -1), keepdims=True)
