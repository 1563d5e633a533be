"""Parameters, checked input, linear systems, and information about solutions, for all engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import (
    Backend,
    array_namespace,
    choose_backend,
    convert_like,
    intensity_unit,
    result_dtype,
    to_numpy,
)
from cm_lightning.confidence.boundary import BoolArray, SinkMode, distinct_masks, find_boundary
from cm_lightning.confidence.envelope import envelope
from cm_lightning.confidence.weights import Formulation, Normalise, WeightFunction

SignalMode = Literal["B", "RF"]
Method = Literal["cg", "direct"]

# A NumPy or CuPy array.
Array = Any


# Smallest number of pixels along the second axis of an array that is taken for a picture with colour channels.
COLOUR_WIDTH = 16
# Range of floating-point intensities that are clearly on the scale from 0 to 1, also after augmentation or noise.
SCALE_RANGE = (-0.5, 2.0)


@dataclass(frozen=True)
class SolverParameters:
    """Parameters of :class:`cm_lightning.confidence.ConfidenceMapSolver`.

    The defaults are those of the study (alpha 0.5, beta 100). It does not report gamma, for which the default of MONAI
    is used. The study also tried (alpha, beta) = (0.2, 400), (0.2, 100) and (0.5, 400).

    Alpha and beta have a meaning only together with the pixel size of the frames: the same values on another grid give
    another map.

    Args:
        alpha: Attenuation coefficient (dimensionless), relative to the depth of the insonified region.
        beta: Sensitivity of the random walk to intensity differences.
        gamma: Penalty (dimensionless, at least 0) that is added to the intensity difference, which is from 0 to 1, of
            horizontal and diagonal edges; times sqrt(2) for diagonal edges with ``paper`` and ``realtime``.
        formulation: Formula for edge weights. ``realtime`` also uses the boundary of CAMPVis: source and sink are
            virtual nodes, which are connected to the first and last pixels by edges of weight 1.
        normalise: ``frame`` rescales the intensities of each frame. ``fixed`` uses a fixed scale from 0 to 1 (integers
            are divided by the maximum of their type; floats must be from 0 to 1), for sequences and for gradients.
        sink: Choice of the sink among the last insonified pixels of all columns: ``all``, the ``mid`` one, or those
            with the ``min`` intensity, without a tenth of the columns at either side. A sink mask of a call takes
            precedence.
        mode: ``B`` for envelopes (B-mode images), ``RF`` for radio-frequency lines, for which the envelope along depth
            is computed first. The MATLAB code and MONAI shift RF lines to the range from 0 to 1 before this, so
            the envelope contains the carrier frequency. This is not done here.
        tolerance: Maximum error of a map.
        method: ``cg`` for conjugate gradients, ``direct`` for a direct solution in float64.
        max_batch: Maximum number of frames that are processed at once, which limits the memory. By default, every CPU
            core processes a large frame or a group of small frames (up to 16), and a GPU as many frames as fit into
            its memory.
        backend: ``auto`` for the device of the frames, ``cpu``, or ``cuda``.

    Raises:
        ValueError: A parameter is out of its range, or not one of its choices.
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
        """Check the parameters, and convert numbers of NumPy to those of Python, since compiled code needs these."""
        for name in ("alpha", "beta", "gamma", "tolerance"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.max_batch is not None:
            object.__setattr__(self, "max_batch", int(self.max_batch))
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, found {value}.")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1, found {self.tolerance}.")
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
    """Information about the solutions of a call, ``(...)`` each for frames of shape ``(..., depth, lateral)``.

    Attributes:
        iterations: Number of steps of conjugate gradients; 0 for direct solutions.
        error_estimate: Estimate of the maximum error of the map.
        error_bound: Proven upper bound of the maximum error, including rounding errors; NaN if it was not computed,
            infinite if no bound was found.
        fallback: Whether the direct solver was used instead of conjugate gradients, because the system is
            ill-conditioned or the tolerance was not reached.
    """

    iterations: NDArray[np.int64]
    error_estimate: NDArray[np.float64]
    error_bound: NDArray[np.float64]
    fallback: BoolArray

    @classmethod
    def for_known_maps(cls, frames: int, certify: bool) -> "SolveInfo":
        """Create the information for maps without unknown pixels, which engines update for all other maps.

        Args:
            frames: Number of frames.
            certify: Whether error bounds are computed.

        Returns:
            Information with 0 steps and errors of 0, ``(frames,)`` each.
        """
        return cls(
            iterations=np.zeros(frames, dtype=np.int64),
            error_estimate=np.zeros(frames),
            error_bound=np.full(frames, 0.0 if certify else np.nan),
            fallback=np.zeros(frames, dtype=bool),
        )

    def reshape(self, leading: tuple[int, ...]) -> "SolveInfo":
        """Change the shape of all arrays.

        Args:
            leading: New shape.

        Returns:
            Information with this shape.
        """
        return SolveInfo(*(getattr(self, name).reshape(leading) for name in self.__dataclass_fields__))


class Problem:
    """Checked input of a call of the solver.

    Args:
        parameters: Parameters of the solver.
        frames: Frames, ``(..., depth, lateral)``; see :meth:`cm_lightning.confidence.ConfidenceMapSolver.solve`.
        domain: Insonified pixels, broadcastable to ``frames``, or None.
        source: Source pixels, broadcastable to ``frames``, or None.
        sink: Sink pixels, broadcastable to ``frames``, or None.

    Attributes:
        parameters: Parameters of the solver.
        backend: Backend, ``cpu`` or ``cuda``.
        leading: Shape of the frames without depth and lateral.
        frames: Intensities, ``(frames, depth, lateral)``, as a NumPy array for the CPU, and unchanged otherwise.
        shape: Shape of these intensities.
        dtype: Precision of the maps.
        rounding: Maximum rounding error of storing a map in this type.
        weight_function: Formula for edge weights.
        boundary: Masks of all frames, on the CPU.

    Raises:
        ValueError: The frames have fewer than two axes or no pixels, contain NaN or infinity (for the CPU; the engine
            checks this on a GPU), a mask has an incompatible shape, or the backend is not available.
    """

    def __init__(self, parameters: SolverParameters, frames: Any, domain: Any, source: Any, sink: Any) -> None:
        if not hasattr(frames, "ndim"):
            frames = np.asarray(frames)
        if frames.ndim < 2:
            raise ValueError(f"frames must have the axes (..., depth, lateral), found shape {tuple(frames.shape)}.")
        if 0 in frames.shape[-2:]:
            raise ValueError(f"frames must have at least one pixel, found shape {tuple(frames.shape)}.")
        if frames.ndim == 3 and frames.shape[-1] in (3, 4) and frames.shape[-2] >= COLOUR_WIDTH:
            raise ValueError(
                f"frames must have the shape (..., depth, lateral), found {tuple(frames.shape)}, whose last axis seems "
                "to contain colour channels; convert it to grey levels."
            )
        if "complex" in str(frames.dtype):
            raise ValueError(f"frames must be real, found {frames.dtype}; take the magnitude of complex values.")
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
        if parameters.normalise == "fixed":
            self._check_scale()
        full_shape = tuple(frames.shape)
        given = {"domain": domain, "source": source, "sink": sink}
        masks, numbers = distinct_masks(
            [_flat_mask(name, mask, full_shape) for name, mask in given.items()], self.shape[0]
        )
        on_cpu = [None if mask is None else to_numpy(mask).astype(bool) for mask in masks]
        intensities = to_numpy(self.frames) if parameters.sink == "min" and sink is None else None
        self.boundary = find_boundary(
            self.shape[0], self.shape[1:], intensities, (on_cpu[0], on_cpu[1], on_cpu[2]), numbers, parameters.sink
        )

    def _check_scale(self) -> None:
        """Check that intensities have the fixed scale of their type, so that no map is computed with another one.

        Raises:
            ValueError: Floating-point intensities are not between 0 and 1, or integers of another type than uint8 are
                all in its range, so that their unit is unknown.
        """
        if self.parameters.mode == "RF" or 0 in self.frames.shape:
            return
        lowest, highest = float(self.frames.min()), float(self.frames.max())
        is_integer = "int" in str(self.frames.dtype)
        is_scaled = SCALE_RANGE[0] <= lowest and highest <= SCALE_RANGE[1]
        if not is_integer and "bool" not in str(self.frames.dtype) and not is_scaled:
            raise ValueError(
                "normalise='fixed' needs floating-point intensities from 0 to 1, or integers; found intensities from "
                f"{lowest:.4g} to {highest:.4g}. Divide by the intensity of white, or use normalise='frame'."
            )
        if is_integer and str(self.frames.dtype).removeprefix("torch.") != "uint8" and (lowest < 0 or highest <= 255):
            raise ValueError(
                f"normalise='fixed' divides integers by the maximum of their type, but found {self.frames.dtype} with "
                f"intensities from {lowest:.0f} to {highest:.0f}. Convert intensities up to 255 to uint8, or use "
                "normalise='frame'."
            )

    def check_finite(self, finite: BoolArray, frames: Sequence[int] | None = None) -> None:
        """Check that frames are finite.

        Args:
            finite: Whether each of these frames is finite, ``(frames,)``.
            frames: Indices of the frames; by default, all frames.

        Raises:
            ValueError: A frame contains NaN or infinity; the message contains the index of the first one.
        """
        if not finite.all():
            number = int(np.argmin(finite))
            first = number if frames is None else frames[number]
            index = tuple(int(i) for i in np.unravel_index(first, self.leading)) if self.leading else ()
            name = f"frame {index}" if index else "the frame"
            raise ValueError(f"frames must be finite, found NaN or infinity in {name}.")

    def intensities(self, frames: Array) -> Array:
        """Compute the intensities from which weights are computed.

        Args:
            frames: Frames or parts of frames, ``(..., depth, lateral)``, as a NumPy or CuPy array.

        Returns:
            Intensities, float64, ``(..., depth, lateral)``: with a fixed scale if this is configured, and the envelope
            of RF lines.
        """
        unit = intensity_unit(frames.dtype) if self.parameters.normalise == "fixed" else 1.0
        image = frames.astype(np.float64) / unit
        return envelope(image) if self.parameters.mode == "RF" else image

    def restore(self, maps: Any) -> Any:
        """Convert maps to the shape, type and device of the frames.

        Args:
            maps: Confidence maps, ``(frames, depth, lateral)``, as a NumPy or CuPy array, or, if the frames are a
                tensor, as a tensor.

        Returns:
            Confidence maps, ``(..., depth, lateral)``.
        """
        return convert_like(maps.reshape(*self.leading, *self.shape[1:]), self._given)


def _flat_mask(name: str, mask: Any, shape: tuple[int, ...]) -> Any:
    """Convert a mask to bool on its device, with the shape ``(frames, depth, lateral)`` or ``(1, depth, lateral)``."""
    if mask is None:
        return None
    flags = mask.detach().bool() if isinstance(mask, torch.Tensor) else array_namespace(mask).asarray(mask).astype(bool)
    broadcast = torch.broadcast_to if isinstance(mask, torch.Tensor) else array_namespace(mask).broadcast_to
    try:
        if flags.ndim <= 2 or all(side == 1 for side in flags.shape[:-2]):
            return broadcast(flags.reshape(flags.shape[-2:]), shape[-2:])[None]
        return broadcast(flags, shape).reshape(-1, *shape[-2:])
    except (ValueError, RuntimeError):  # from NumPy and CuPy, and from PyTorch
        raise ValueError(
            f"{name} has the shape {tuple(flags.shape)}, which cannot be broadcast to the shape {shape} of the frames."
        ) from None
