"""Edge weights of random walks, from the intensities of frames."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Formulation = Literal["reference", "paper", "realtime"]
Normalise = Literal["frame", "fixed"]

# A NumPy or CuPy array. All functions of this module support both.
Array = Any

# Minimum weight of all edges. The published MATLAB code and MONAI (>= 1.4) use 1e-5 (older versions of MONAI use 1e-6,
# for which maps are visibly different), and CAMPVis uses 1e-4. The paper has no minimum, so its value only
# prevents weights of 0 in floating-point arithmetic.
EDGE_FLOOR: dict[Formulation, float] = {"reference": 1e-5, "paper": 1e-100, "realtime": 1e-4}


@dataclass(frozen=True)
class EdgeWeights:
    """Edge weights of the 8-neighbour graphs of frames, which are 0 if one end of an edge is outside the domain.

    Attributes:
        vertical: Weights between a pixel and the pixel below it, ``(..., depth - 1, lateral)``.
        horizontal: Weights between a pixel and its right neighbour, ``(..., depth, lateral - 1)``.
        down_right: Weights between a pixel and the pixel to the lower right, ``(..., depth - 1, lateral - 1)``.
        down_left: Weights between the right neighbour of a pixel and the pixel below it,
            ``(..., depth - 1, lateral - 1)``.
    """

    vertical: Array
    horizontal: Array
    down_right: Array
    down_left: Array


# Both ends of each kind of edge as slices of an array (..., depth, lateral), in the order of the fields of EdgeWeights.
_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
EDGE_ENDS = {
    "vertical": ((..., _FIRST, _ALL), (..., _LAST, _ALL)),
    "horizontal": ((..., _ALL, _FIRST), (..., _ALL, _LAST)),
    "down_right": ((..., _FIRST, _FIRST), (..., _LAST, _LAST)),
    "down_left": ((..., _FIRST, _LAST), (..., _LAST, _FIRST)),
}
# Kinds of edges that leave the scan line.
_PENALISED = ("horizontal", "down_right", "down_left")
# Offset of the second end in rows and columns, in the same order.
EDGE_STEPS = ((1, 0), (0, 1), (1, 1), (1, -1))


@dataclass(frozen=True)
class WeightFunction:
    """Formula for edge weights from the intensities of a frame.

    ``reference`` is the formula of the original MATLAB code of Karamalis et al. 2012 and of MONAI's direct solver:

    1. ``g = (I - min) / (max - min)``
    2. ``g *= 1 - exp(-alpha * d)``, with the depth ``d`` from 0 at the first row to 1 at the last row of the domain
    3. ``s = |g_i - g_j|`` for every edge, divided by the largest ``s`` of the frame
    4. ``s += gamma`` for horizontal and diagonal edges, then ``s`` is divided by its new maximum
    5. ``w = exp(-beta * s) + 1e-5``

    ``paper`` is the formula as printed in Karamalis et al. 2012: step 1, ``g *= exp(-alpha * d)``, ``s = |g_i - g_j|``
    plus ``gamma`` for horizontal and ``sqrt(2) * gamma`` for diagonal edges, and ``w = exp(-beta * s)``. Steps ``s``
    are not rescaled, and there is no minimum weight (except for 1e-100, which prevents weights of 0).

    ``realtime`` is the formula of CAMPVis: the attenuation of step 2, the penalties of ``paper``, and ``w = exp(-beta *
    s) + 1e-4``, without rescaling of ``s``.

    With ``normalise="frame"``, the minimum, the maximum and the largest step are those of the domain of a frame, so
    a frame with black borders has exactly the same weights as its crop. With ``normalise="fixed"``, intensities
    have a fixed scale from 0 to 1 (the solver divides integers by the maximum of their type), and neither intensities
    nor steps are rescaled. In this case, a bright annotation has no effect on other parts of the frame, the maps of a
    sequence are comparable, and maps are differentiable.

    Attributes:
        formulation: The formula.
        normalise: Whether intensities and steps are rescaled by the values of each frame.
        alpha: Attenuation coefficient (dimensionless), relative to the depth of the domain.
        beta: Sensitivity of the random walk to intensity differences.
        gamma: Penalty (dimensionless, at least 0) that is added to the intensity difference, which is from 0 to 1, of
            horizontal and diagonal edges; times sqrt(2) for diagonal edges with ``paper`` and ``realtime``.

    References:
        Karamalis et al., "Ultrasound confidence maps using random walks", Medical Image Analysis 2012. Schulte zu Berge
        et al., "Real-time uncertainty visualization for B-mode ultrasound", IEEE VIS 2014, for CAMPVis.
    """

    formulation: Formulation
    normalise: Normalise
    alpha: float
    beta: float
    gamma: float

    def __call__(self, frames: Array, domain: Array) -> EdgeWeights:
        """Compute the edge weights.

        Args:
            frames: Intensities, float64, ``(..., depth, lateral)``, from 0 to 1 for ``normalise="fixed"``.
            domain: Insonified pixels, at least one in every frame, ``(..., depth, lateral)``.

        Returns:
            Edge weights.
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
        """Propagate a gradient from the weights to the intensities, for ``normalise="fixed"`` only.

        Args:
            frames: Intensities, float64, ``(..., depth, lateral)``, from 0 to 1 for ``normalise="fixed"``.
            domain: Insonified pixels, ``(..., depth, lateral)``.
            weight_gradients: Gradient with respect to the weights.

        Returns:
            Gradient with respect to the intensities, ``(..., depth, lateral)``.
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
        """Scale intensities to the range from 0 to 1."""
        if self.normalise == "fixed":
            return np.where(domain, frames, 0.0)
        lowest = np.where(domain, frames, np.inf).min(axis=(-2, -1), keepdims=True)
        highest = np.where(domain, frames, -np.inf).max(axis=(-2, -1), keepdims=True)
        image = np.where(domain, frames - lowest, 0.0)
        image /= np.where(highest > lowest, highest - lowest, 1.0)
        return image

    @property
    def diagonal_gamma(self) -> float:
        """Penalty of diagonal edges."""
        return self.gamma if self.formulation == "reference" else float(np.sqrt(2.0)) * self.gamma

    def decay(self, domain: Array) -> Array:
        """Compute the factor by which intensities are multiplied at each depth.

        Args:
            domain: Insonified pixels, ``(..., depth, lateral)``.

        Returns:
            Factors, ``(..., depth, 1)``.
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
        """Compute the coefficients in ``w = exp(-scale * |g_i - g_j| - penalty) + floor``.

        Args:
            largest: Largest ``|g_i - g_j|`` by kind of edge, ``(..., 1, 1)`` each.
            exists: Whether there are edges, by kind of edge, ``(..., 1, 1)`` each.

        Returns:
            The scale, and the penalties by kind of edge, as numbers or ``(..., 1, 1)``.
        """
        if self.formulation != "reference" or self.normalise == "fixed":
            diagonal = self.beta * self.diagonal_gamma
            penalties = {"vertical": 0.0, "horizontal": self.beta * self.gamma}
            return self.beta, {**penalties, "down_right": diagonal, "down_left": diagonal}
        overall = np.maximum(
            np.maximum(largest["vertical"], largest["horizontal"]),
            np.maximum(largest["down_right"], largest["down_left"]),
        )
        overall = np.where(overall > 0, overall, 1.0)
        penalised = largest["vertical"] / overall
        for name in _PENALISED:
            penalised = np.maximum(penalised, (largest[name] / overall + self.gamma) * exists[name])
        penalised = np.where(penalised > 0, penalised, 1.0)
        scaled_penalty = self.beta * self.gamma / penalised
        return self.beta / (overall * penalised), {"vertical": 0.0, **dict.fromkeys(_PENALISED, scaled_penalty)}


def _maximum(steps: Array) -> Array:
    """Return the largest step of each frame, ``(..., 1, 1)``; 0 if a frame has no edge of this kind."""
    if 0 in steps.shape[-2:]:
        return np.zeros_like(steps, shape=(*steps.shape[:-2], 1, 1))
    return steps.max(axis=(-2, -1), keepdims=True)
