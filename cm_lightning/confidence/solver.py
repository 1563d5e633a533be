"""The confidence map of a frame: the probability that a random walk gets back to the probe."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from cm_lightning.confidence.arrays import FrameArray
from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.gradient import differentiable_maps
from cm_lightning.confidence.problem import Problem, SolveInfo, SolverParameters
from cm_lightning.confidence.weights import Formulation

# Raise it when the maps change: it is part of the key under which maps are kept on disk.
SOLVER_VERSION = 2


@dataclass(frozen=True)
class ConfidenceMapSolver(SolverParameters):
    """Confidence maps of ultrasound frames by the random walk of Karamalis et al. 2012.

    Every pixel of the insonified domain is a node of an 8-neighbour graph whose edges are weighted by
    :class:`cm_lightning.confidence.weights.WeightFunction`, which tells what each formulation computes. Source pixels
    (the probe's face) are held at 1 and sink pixels (the deepest ones) at 0; the map elsewhere is harmonic, that is,
    the probability that a random walk from the pixel reaches a source before a sink.

    The linear system is solved by conjugate gradients in float64, preconditioned with a subtraction-free elimination in
    float32 (:mod:`cm_lightning.confidence.cpu.elimination`). One or two steps suffice whatever the image and the
    parameters; a frame on which they do not is solved directly in float64, and :meth:`solve` says so.

    The arguments, with their defaults, are those of :class:`cm_lightning.confidence.problem.SolverParameters`.

    Example:
        >>> frames = np.random.default_rng(0).random((2, 16, 12))
        >>> maps = ConfidenceMapSolver(alpha=0.5, beta=100.0)(frames)
        >>> maps.shape, float(maps[0, 0, 0]), float(maps[0, -1, 0])
        ((2, 16, 12), 1.0, 0.0)
    """

    @classmethod
    def preset(cls, name: Formulation, **changes: Any) -> "ConfidenceMapSolver":
        """Make a solver as published.

        Args:
            name: ``reference`` (the original MATLAB code; also MONAI's direct solve), ``paper`` (Karamalis et al.
                2012 as printed) or ``realtime`` (CAMPVis: intensities on a fixed scale, virtual source and sink).
            **changes: Arguments that differ from the preset.

        Returns:
            The solver. Published alpha, beta and gamma: 2, 90 and 0.05 (Karamalis et al. 2012), which CAMPVis shares.
        """
        published = cls(
            alpha=2.0,
            beta=90.0,
            gamma=0.05,
            formulation=name,
            normalise="fixed" if name == "realtime" else "frame",
        )
        return replace(published, **changes)

    def __call__(
        self,
        frames: FrameArray,
        domain: Any = None,
        source: Any = None,
        sink: Any = None,
    ) -> FrameArray:
        """Compute the map of every frame; frames do not influence each other.

        Where ``frames`` is a tensor that requires a gradient, so does the map; that needs ``normalise="fixed"``.

        Args:
            frames: Intensities of shape ``(..., depth, lateral)``, row 0 nearest the probe; NumPy, CuPy or torch, any
                real dtype and device.
            domain: Insonified pixels, broadcastable to the shape of ``frames``; the whole frame by default.
            source: Pixels at the probe's face; by default the first pixel of the domain in every column.
            sink: Pixels where a walk is lost; by default chosen by the argument ``sink`` of the solver.

        Returns:
            Maps in [0, 1] of the same kind, shape and device; float64 for float64 input, else float32. Pixels outside
            the domain are 0. A pixel that is source and sink at once is 1. A part of the domain with a source and no
            sink is 1; a part with no source is 0.

        Raises:
            ValueError: Fewer than two axes, a mask of another shape, or NaN or infinite intensities (the message
                names the frame's index); a gradient is required of ``normalise="frame"``.
        """
        if isinstance(frames, torch.Tensor) and frames.requires_grad and torch.is_grad_enabled():
            return cast("FrameArray", differentiable_maps(self, frames, domain, source, sink))
        maps, info = self.solve(frames, domain, source, sink)
        missed = np.atleast_1d(~(info.error_estimate <= self.tolerance))
        if missed.any():
            warnings.warn(
                f"The maps of {missed.sum()} of {missed.size} frames miss the tolerance of {self.tolerance:g} (first: "
                f"{np.argwhere(missed)[0].tolist()}); their estimated errors are at most "
                f"{np.max(info.error_estimate):.1e}.",
                stacklevel=2,
            )
        return maps

    def solve(
        self,
        frames: FrameArray,
        domain: Any = None,
        source: Any = None,
        sink: Any = None,
        certify: bool = False,
    ) -> tuple[FrameArray, SolveInfo]:
        """Compute the maps and tell how they were computed.

        Args:
            frames: As in the call.
            domain: The same.
            source: The same.
            sink: The same.
            certify: Whether to prove a bound on every map's error. A frame whose bound exceeds the tolerance is solved
                directly. It takes about as long as two more steps.

        Returns:
            The maps, and what there is to know about them.

        Raises:
            ValueError: As in the call, gradients aside.
        """
        problem = Problem(self, frames, domain, source, sink)
        return choose_engine(problem).solve(problem, certify)
