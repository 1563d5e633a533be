"""The confidence map of a frame: the probability that a random walk gets back to the probe."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import hilbert

from cm_lightning.confidence.arrays import (
    Backend,
    FrameArray,
    choose_backend,
    like,
    result_dtype,
    to_numpy,
    unit_of,
)
from cm_lightning.confidence.boundary import Boundary, SinkMode, find_boundary
from cm_lightning.confidence.cpu.equations import frame_equations
from cm_lightning.confidence.cpu.solver import Method, ThreadSolvers, compile_once, run_on_all_cores
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.weights import Formulation, Normalise, WeightFunction

SignalMode = Literal["B", "RF"]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SolveInfo:
    """How the maps of a call were computed; every array has the leading shape of the frames.

    Attributes:
        iterations: Steps of conjugate gradients; 0 where the direct solve was asked for or stepped in.
        error_estimate: Estimated largest error of the map.
        error_bound: Proven upper bound on the largest error, rounding included; NaN if not asked for.
        fallback: Whether conjugate gradients did not reach the tolerance, so that the direct solve stepped in.
    """

    iterations: NDArray[np.int64]
    error_estimate: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    fallback: BoolArray


@dataclass(frozen=True)
class ConfidenceMapSolver:
    """Confidence maps of ultrasound frames by the random walk of Karamalis et al. 2012.

    Every pixel of the insonified domain is a node of an 8-neighbour graph whose edges are weighted by
    :class:`cm_lightning.confidence.weights.WeightFunction`, which tells what each formulation computes. Source pixels
    (the probe's face) are held at 1 and sink pixels (the deepest ones) at 0; the map elsewhere is harmonic, that is,
    the probability that a random walk from the pixel reaches a source before a sink.

    The linear system is solved by conjugate gradients in float64, preconditioned with a subtraction-free elimination in
    float32 (:mod:`cm_lightning.confidence.cpu.elimination`). One or two steps suffice whatever the image and the
    parameters; a frame on which they do not is solved directly in float64, and :meth:`solve` says so.

    Defaults are those of the study (alpha 0.5, beta 100); it does not print gamma, for which MONAI's default is taken.
    The study also tried (alpha, beta) = (0.2, 400), (0.2, 100) and (0.5, 400).

    Args:
        alpha: Attenuation coefficient, per depth of the domain.
        beta: How strongly an intensity step blocks the walk.
        gamma: Penalty on horizontal and diagonal steps.
        formulation: How intensities become weights. ``realtime`` also has CAMPVis' boundary: source and sink are nodes
            of their own behind the first and last pixels, linked to each with weight 1.
        normalise: ``frame`` rescales by each frame's own intensities, ``fixed`` takes them on a scale from 0 to 1
            (integers: to their type's largest value), for sequences, and for gradients.
        sink: Of the last insonified pixels of the columns, take ``all``, the ``mid`` one, or those of ``min``
            intensity; a mask can be given in the call.
        mode: ``B`` for envelopes (B-mode images), ``RF`` for radio-frequency lines, whose envelope along depth is
            taken first (magnitude of the analytic signal). The MATLAB code and MONAI shift the lines to [0, 1] before
            that, which lets the carrier through; here they are taken as they are.
        tolerance: Largest error of a map to be reached.
        method: ``cg`` for conjugate gradients as above, ``direct`` for the subtraction-free elimination in float64.
        max_batch: Frames that are worked on at a time, which bounds the memory: as many as there are cores, on a GPU as
            many as fit, if None.
        backend: ``auto`` computes where the frames are; ``cpu`` and ``cuda`` there, wherever they are.

    Raises:
        ValueError: A parameter is negative, not finite, or not one of its choices.

    Example:
        >>> frames = np.random.default_rng(0).random((2, 16, 12))
        >>> maps = ConfidenceMapSolver(alpha=0.5, beta=100.0)(frames)
        >>> maps.shape, float(maps[0, 0, 0]), float(maps[0, -1, 0])
        ((2, 16, 12), 1.0, 0.0)
    """

    alpha: float = 0.5
    beta: float = 100.0
    gamma: float = 0.05
    formulation: Formulation = "reference"
    normalise: Normalise = "frame"
    sink: SinkMode = "all"
    mode: SignalMode = "B"
    tolerance: float = 1e-3
    method: Method = "cg"
    max_batch: int | None = None
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        """Refuse parameters that describe no random walk."""
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, found {value}.")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, found {self.tolerance}.")
        if self.max_batch is not None and self.max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, found {self.max_batch}.")
        choices: dict[str, tuple[str, ...]] = {
            "formulation": ("reference", "paper", "realtime"),
            "normalise": ("frame", "fixed"),
            "sink": ("all", "mid", "min"),
            "mode": ("B", "RF"),
            "method": ("cg", "direct"),
            "backend": ("auto", "cpu", "cuda"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r}.")

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
            from cm_lightning.confidence.gradient import differentiable_maps

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
        """
        problem = Problem(self, frames, domain, source, sink)
        if problem.backend == "cuda":
            from cm_lightning.confidence.cuda import solve_on_gpu

            return solve_on_gpu(problem, certify)
        maps = np.zeros(problem.shape, problem.dtype)
        iterations = np.zeros(len(maps), dtype=np.int64)
        estimate = np.zeros(len(maps))
        bound = np.full(len(maps), 0.0 if certify else np.nan)
        fallback = np.zeros(len(maps), dtype=bool)
        solvers = ThreadSolvers(self.method, self.tolerance, certify)

        def solve_frame(index: int) -> None:
            system = problem.system(index)
            if system is None:
                return
            solution = solvers.of(system.values.shape)(system.network)
            part = maps[index][system.rows, system.columns]
            part[...] = np.clip(solution.values, 0.0, 1.0) + system.values
            iterations[index] = solution.iterations
            estimate[index] = solution.error_estimate
            bound[index] = solution.error_bound + problem.rounding
            fallback[index] = solution.fallback

        compile_once(self.method == "direct")
        run_on_all_cores(solve_frame, len(maps), self.max_batch)
        leading = problem.leading
        info = SolveInfo(
            iterations.reshape(leading), estimate.reshape(leading), bound.reshape(leading), fallback.reshape(leading)
        )
        return like(maps.reshape(*leading, *problem.shape[1:]), frames), info


@dataclass(frozen=True)
class System:
    """One frame's equations, on the rectangle around its domain.

    Attributes:
        rows: The rectangle's rows.
        columns: The rectangle's columns.
        frame: Its intensities, after envelope and unit, float64.
        boundary: Its masks, of length 1.
        values: Its known values, 0 elsewhere.
        network: The equations.
    """

    rows: slice
    columns: slice
    frame: NDArray[np.float64]
    boundary: Boundary
    values: NDArray[np.float64]
    network: Network


class Problem:
    """The input of one call, checked.

    Args:
        solver: Whose parameters hold.
        frames: As given to it.
        domain: The same.
        source: The same.
        sink: The same.
    """

    def __init__(self, solver: ConfidenceMapSolver, frames: Any, domain: Any, source: Any, sink: Any) -> None:
        if not hasattr(frames, "ndim"):
            frames = np.asarray(frames)
        if frames.ndim < 2:
            raise ValueError(f"frames must have the axes (..., depth, lateral), found shape {tuple(frames.shape)}.")
        if 0 in frames.shape[-2:]:
            raise ValueError(f"frames must have at least one pixel, found shape {tuple(frames.shape)}.")
        self.solver = solver
        self.backend = choose_backend(solver.backend, frames)
        self.leading: tuple[int, ...] = tuple(frames.shape[:-2])
        self.dtype = result_dtype(frames)
        # What storing a map in its type may add to the error of a value of at most 1.
        self.rounding = float(np.finfo(self.dtype).eps) / 2
        self.frames = frames.reshape(-1, *frames.shape[-2:])
        self.shape: tuple[int, int, int] = tuple(self.frames.shape)
        self.weight_function = WeightFunction(
            solver.formulation, solver.normalise, solver.alpha, solver.beta, solver.gamma
        )
        if self.backend == "cpu":
            self.frames = to_numpy(self.frames)
            self.refuse_non_finite(np.isfinite(self.frames).all(axis=(-2, -1)))
        whole = tuple(frames.shape)
        looked_at = to_numpy(self.frames) if solver.sink == "min" and sink is None else None
        self.boundary = find_boundary(
            self.shape[1:],
            looked_at,
            _flat_mask("domain", domain, whole),
            _flat_mask("source", source, whole),
            _flat_mask("sink", sink, whole),
            solver.sink,
        )

    def refuse_non_finite(self, finite: BoolArray) -> None:
        """Name the first frame that holds NaN or infinity."""
        if not finite.all():
            first = int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(first, self.leading)) if self.leading else ()
            place = f"frame {index}" if index else "the frame"
            raise ValueError(f"frames must be finite, found NaN or infinity in {place}.")

    def system(self, index: int) -> System | None:
        """Set up one frame's equations; None if its domain is empty."""
        boundary = self.boundary.of(slice(index, index + 1))
        domain = boundary.domain[0]
        if not domain.any():
            return None
        rows, columns = extent(domain.any(axis=1)), extent(domain.any(axis=0))
        boundary = boundary.crop(rows, columns)
        frame = self.frames[index, rows, columns]
        unit = unit_of(frame.dtype) if self.solver.normalise == "fixed" else 1.0
        frame = frame.astype(np.float64) / unit
        if self.solver.mode == "RF":
            frame = np.abs(hilbert(frame, axis=0))
        values, network = frame_equations(self.weight_function, frame, boundary)
        return System(rows, columns, frame, boundary, values, network)


def extent(flags: BoolArray) -> slice:
    """Give the range from the first to the last true value."""
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1)


def _flat_mask(name: str, mask: Any, shape: tuple[int, ...]) -> BoolArray | None:
    """Bring a mask to the host and to ``(frames or 1, depth, lateral)``."""
    if mask is None:
        return None
    host = to_numpy(mask).astype(bool)
    try:
        if host.ndim <= 2 or all(side == 1 for side in host.shape[:-2]):
            flat = np.broadcast_to(host.reshape(host.shape[-2:]), shape[-2:])[None]
        else:
            flat = np.broadcast_to(host, shape).reshape(-1, *shape[-2:])
    except ValueError:
        raise ValueError(f"{name} of shape {host.shape} does not fit frames of shape {shape}.") from None
    result: BoolArray = flat
    return result
