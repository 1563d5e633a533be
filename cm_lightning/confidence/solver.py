"""Confidence maps: for every pixel, the probability that a random walk reaches the probe."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from cm_lightning.confidence.arrays import FrameArray
from cm_lightning.confidence.domain.sides import Side, turn_back, turn_to_top
from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.gradient import differentiable_maps
from cm_lightning.confidence.problem import Problem, SolveInfo, SolverParameters
from cm_lightning.confidence.weights import Formulation

# Version of the maps, which is part of the keys of cached maps. It must be increased if maps change by more than
# rounding errors.
SOLVER_VERSION = 2


@dataclass(frozen=True)
class ConfidenceMapSolver(SolverParameters):
    """Solver for confidence maps of ultrasound frames.

    Every pixel of the insonified region (domain) is a node of an 8-neighbour graph with the edge weights of
    :class:`cm_lightning.confidence.weights.WeightFunction`, which describes the formulations. The map is 1 at source
    pixels (at the face of the probe), 0 at sink pixels (the deepest ones), and harmonic elsewhere. This is the
    probability that a random walk from a pixel reaches a source before a sink. With ``formulation="realtime"``, source
    and sink are virtual nodes next to these pixels, so the map is below 1 at source and above 0 at sink pixels.

    The linear system is solved by conjugate gradients in float64. The preconditioner is a factorisation in float32
    without subtractions (:mod:`cm_lightning.confidence.cpu.lanes`), with which one or two steps are usually
    sufficient. If they are not sufficient, or if the system is ill-conditioned (only with ``formulation="paper"``), the
    frame is solved directly in float64, which :meth:`solve` reports.

    Arguments and defaults are those of :class:`cm_lightning.confidence.problem.SolverParameters`.

    References:
        Karamalis et al., "Ultrasound confidence maps using random walks", Medical Image Analysis 2012.

    Example:
        >>> frames = np.random.default_rng(0).random((2, 16, 12))
        >>> maps = ConfidenceMapSolver(alpha=0.5, beta=100.0)(frames)
        >>> maps.shape, float(maps[0, 0, 0]), float(maps[0, -1, 0])
        ((2, 16, 12), 1.0, 0.0)
    """

    @classmethod
    def preset(cls, name: Formulation, **changes: Any) -> "ConfidenceMapSolver":
        """Create a solver with published parameters.

        Args:
            name: ``reference`` (original MATLAB code, and MONAI's direct solver), ``paper`` (Karamalis et al. 2012 as
                printed) or ``realtime`` (CAMPVis, with a fixed scale of intensities and virtual source and sink nodes).
            **changes: Parameters that differ from the published ones.

        Returns:
            Solver with the published values 2, 90 and 0.05 of alpha, beta and gamma.

        References:
            Karamalis et al., "Ultrasound confidence maps using random walks", Medical Image Analysis 2012. Schulte zu
            Berge et al., "Real-time uncertainty visualization for B-mode ultrasound", IEEE VIS 2014, for CAMPVis.
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
        up: Side = "top",
    ) -> FrameArray:
        """Compute the confidence map of every frame, independently of other frames.

        If ``frames`` is a tensor that requires a gradient, the map is differentiable with ``normalise="fixed"``.
        Otherwise, there is a warning if the estimated error of a map exceeds ``tolerance``.

        Args:
            frames: Intensities, ``(..., depth, lateral)``, as a NumPy array, CuPy array or PyTorch tensor of any real
                dtype on any device.
            domain: Insonified pixels, broadcastable to ``frames``; the whole frame by default.
            source: Pixels at the face of the probe, broadcastable to ``frames``; the first pixel of the domain in every
                column by default.
            sink: Pixels at which random walks end, broadcastable to ``frames``; chosen by the parameter ``sink`` of the
                solver by default.
            up: Side of the frames at which the probe is. Frames and masks are flipped or transposed so that the probe
                is at row 0, and the maps are changed back.

        Returns:
            Confidence maps from 0 to 1, ``(..., depth, lateral)``, with the type and device of the frames; float64 for
            float64 frames, and float32 otherwise. Pixels outside the domain are 0, and so are connected components of
            the domain without a source. Components with a source but without a sink are 1, and so are pixels that are
            both source and sink (except for ``formulation="realtime"``).

        Raises:
            ValueError: The frames have fewer than two axes or no pixels, or are not finite (the message contains the
                index of the frame), a mask has an incompatible shape, the backend is not available, or a gradient is
                required with ``normalise="frame"`` or ``mode="RF"``.
        """
        if isinstance(frames, torch.Tensor) and frames.requires_grad and torch.is_grad_enabled():
            domain, source, sink = (None if mask is None else turn_to_top(mask, up) for mask in (domain, source, sink))
            turned = differentiable_maps(self, turn_to_top(frames, up), domain, source, sink)
            return cast("FrameArray", turn_back(turned, up))
        maps, info = self.solve(frames, domain, source, sink, up=up)
        missed = np.atleast_1d(~(info.error_estimate <= self.tolerance))
        if missed.any():
            warnings.warn(
                f"The maps of {missed.sum()} of {missed.size} frames do not reach the tolerance of {self.tolerance:g} "
                f"(first: {np.argwhere(missed)[0].tolist()}); their estimated errors are up to "
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
        up: Side = "top",
    ) -> tuple[FrameArray, SolveInfo]:
        """Compute confidence maps without gradients, and return information about the solutions.

        Args:
            frames: Intensities, ``(..., depth, lateral)``; see :meth:`__call__`.
            domain: Insonified pixels, broadcastable to ``frames``, or None; see :meth:`__call__`.
            source: Source pixels, broadcastable to ``frames``, or None; see :meth:`__call__`.
            sink: Sink pixels, broadcastable to ``frames``, or None; see :meth:`__call__`.
            certify: Whether to compute proven error bounds, which takes about as long as two more steps. Frames whose
                bound exceeds the tolerance are solved directly.
            up: Side of the frames at which the probe is; see :meth:`__call__`.

        Returns:
            Confidence maps, ``(..., depth, lateral)``, and information about the solutions.

        Raises:
            ValueError: See :meth:`__call__`, except for gradients.
        """
        if up != "top":
            domain, source, sink = (None if mask is None else turn_to_top(mask, up) for mask in (domain, source, sink))
            maps, info = self.solve(turn_to_top(frames, up), domain, source, sink, certify)
            return turn_back(maps, up), info
        problem = Problem(self, frames, domain, source, sink)
        return choose_engine(problem).solve(problem, certify)
