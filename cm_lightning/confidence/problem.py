"""What every engine takes and gives: parameters, the checked input of a call, equations, and facts about maps."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import Backend, choose_backend, convert_like, intensity_unit, result_dtype, to_numpy
from cm_lightning.confidence.boundary import BoolArray, SinkMode, find_boundary
from cm_lightning.confidence.envelope import envelope
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.weights import Formulation, Normalise, WeightFunction

SignalMode = Literal["B", "RF"]
Method = Literal["cg", "direct"]

# A NumPy or CuPy array.
Array = Any


@dataclass(frozen=True)
class SolverParameters:
    """What :class:`cm_lightning.confidence.ConfidenceMapSolver` is told once, for all of its calls.

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
        """Check that the parameters describe a random walk."""
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

    @classmethod
    def blank(cls, frames: int, certify: bool) -> "SolveInfo":
        """Give the facts about maps that need no solving, for an engine to fill in those about the others.

        Args:
            frames: Number of frames.
            certify: Whether errors will be bounded.

        Returns:
            Arrays of shape ``(frames,)``: no steps, no error.
        """
        return cls(
            iterations=np.zeros(frames, dtype=np.int64),
            error_estimate=np.zeros(frames),
            error_bound=np.full(frames, 0.0 if certify else np.nan),
            fallback=np.zeros(frames, dtype=bool),
        )

    def reshape(self, leading: tuple[int, ...]) -> "SolveInfo":
        """Give the same facts in another shape.

        Args:
            leading: Shape of every array.

        Returns:
            The facts.
        """
        return SolveInfo(*(getattr(self, name).reshape(leading) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class System:
    """Equations on the rectangle around a domain: of one frame on the CPU, of several with that rectangle on a GPU.

    Attributes:
        place: Where they belong in arrays of shape ``(frames, depth, lateral)``: frame or frames, rows, columns.
        image: Intensities, after envelope and unit, float64, ``(..., depth, lateral)``.
        domain: Insonified pixels, broadcastable to ``image``.
        values: Known values, 0 elsewhere, float64, same shape as ``image``.
        graph: The equations.
    """

    place: tuple[Any, slice, slice]
    image: Array
    domain: Array
    values: Array
    graph: RandomWalkGraph


class Problem:
    """The input of one call, checked.

    Args:
        parameters: How the maps are to be computed.
        frames: As given to :meth:`cm_lightning.confidence.ConfidenceMapSolver.solve`.
        domain: The same.
        source: The same.
        sink: The same.

    Attributes:
        parameters: As given.
        backend: Where to compute.
        leading: Shape of ``frames`` without depth and lateral.
        frames: Intensities, ``(frames, depth, lateral)``; on the host if the backend is the CPU, else where they were.
        shape: ``(frames, depth, lateral)``.
        dtype: Precision of the maps.
        rounding: What storing a map in that type may add to the error of a value of at most 1.
        weight_function: How intensities become weights.
        boundary: Masks of all frames, on the host.

    Raises:
        ValueError: Fewer than two axes, no pixel, a mask that does not fit, NaN or infinity (on the CPU; on a GPU the
            engine checks), or a backend that this machine lacks.
    """

    def __init__(self, parameters: SolverParameters, frames: Any, domain: Any, source: Any, sink: Any) -> None:
        if not hasattr(frames, "ndim"):
            frames = np.asarray(frames)
        if frames.ndim < 2:
            raise ValueError(f"frames must have the axes (..., depth, lateral), found shape {tuple(frames.shape)}.")
        if 0 in frames.shape[-2:]:
            raise ValueError(f"frames must have at least one pixel, found shape {tuple(frames.shape)}.")
        self.parameters = parameters
        self.backend = choose_backend(parameters.backend, frames)
        self.leading: tuple[int, ...] = tuple(frames.shape[:-2])
        self.dtype = result_dtype(frames)
        self.rounding = float(np.finfo(self.dtype).eps) / 2
        self._given = frames
        self.frames = frames.reshape(-1, *frames.shape[-2:])
        self.shape: tuple[int, int, int] = tuple(self.frames.shape)
        self.weight_function = WeightFunction(
            parameters.formulation, parameters.normalise, parameters.alpha, parameters.beta, parameters.gamma
        )
        if self.backend == "cpu":
            self.frames = to_numpy(self.frames)
            self.check_finite(np.isfinite(self.frames).all(axis=(-2, -1)))
        whole = tuple(frames.shape)
        looked_at = to_numpy(self.frames) if parameters.sink == "min" and sink is None else None
        self.boundary = find_boundary(
            self.shape[1:],
            looked_at,
            _flat_mask("domain", domain, whole),
            _flat_mask("source", source, whole),
            _flat_mask("sink", sink, whole),
            parameters.sink,
        )

    def check_finite(self, finite: BoolArray) -> None:
        """Name the first frame that holds NaN or infinity.

        Args:
            finite: Whether each frame holds neither, ``(frames,)``.

        Raises:
            ValueError: One holds them.
        """
        if not finite.all():
            first = int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(first, self.leading)) if self.leading else ()
            place = f"frame {index}" if index else "the frame"
            raise ValueError(f"frames must be finite, found NaN or infinity in {place}.")

    def intensities(self, frames: Array) -> Array:
        """Bring frames to what weights are made of.

        Args:
            frames: Some of the problem's frames or a part of them, ``(..., depth, lateral)``; NumPy or CuPy.

        Returns:
            Intensities, float64, same shape: on a scale to 1 if that is fixed, the envelope of RF lines.
        """
        unit = intensity_unit(frames.dtype) if self.parameters.normalise == "fixed" else 1.0
        image = frames.astype(np.float64) / unit
        return envelope(image) if self.parameters.mode == "RF" else image

    def restore(self, maps: Any) -> Any:
        """Bring maps to the frames' shape, kind and device.

        Args:
            maps: ``(frames, depth, lateral)``; a NumPy or CuPy array, or, for frames that are a tensor, a tensor.

        Returns:
            The maps, ``(..., depth, lateral)``.
        """
        return convert_like(maps.reshape(*self.leading, *self.shape[1:]), self._given)


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
