"""The confidence map of a frame: the probability that a random walk gets back to the probe."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from cm_lightning.confidence.domain import BoolArray, column_sink, column_source
from cm_lightning.confidence.weights import EDGE_ENDS, EdgeWeights, edge_weights

FrameArray = TypeVar("FrameArray", NDArray[np.generic], torch.Tensor)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ConfidenceMapSolver:
    """Confidence maps of ultrasound frames by the random walk of Karamalis et al. 2012, solved exactly.

    Every pixel of the insonified domain is a node of an 8-neighbour graph whose edges are weighted by
    :func:`cm_lightning.confidence.weights.edge_weights`. Source pixels (the probe's face) are held at 1 and sink pixels
    (the deepest ones) at 0; the map elsewhere is harmonic, that is, the probability that a random walk from the pixel
    reaches a source before a sink. The linear system is solved by sparse elimination in float64.

    Defaults are those of the study (alpha 0.5, beta 100); it does not print gamma, for which MONAI's default is taken.

    Args:
        alpha: Attenuation coefficient, per depth of the domain.
        beta: How strongly an intensity step blocks the walk, relative to the frame's largest step.
        gamma: Penalty on horizontal and diagonal steps.

    Raises:
        ValueError: A parameter is negative or not finite.

    Example:
        >>> frames = np.random.default_rng(0).random((2, 16, 12))
        >>> maps = ConfidenceMapSolver(alpha=0.5, beta=100.0)(frames)
        >>> maps.shape, float(maps[0, 0, 0]), float(maps[0, -1, 0])
        ((2, 16, 12), 1.0, 0.0)
    """

    alpha: float = 0.5
    beta: float = 100.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        """Refuse parameters that describe no random walk."""
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, found {value}.")

    def __call__(
        self,
        frames: FrameArray,
        domain: FrameArray | None = None,
        source: FrameArray | None = None,
        sink: FrameArray | None = None,
    ) -> FrameArray:
        """Compute the map of every frame; frames do not influence each other.

        Args:
            frames: Intensities of shape ``(..., depth, lateral)``, row 0 nearest the probe; NumPy or torch, any
                real dtype and, for torch, any device.
            domain: Insonified pixels, broadcastable to the shape of ``frames``; the whole frame by default.
            source: Pixels at the probe's face; by default the first pixel of the domain in every column.
            sink: Pixels where a walk is lost; by default the last pixel of the domain in every column.

        Returns:
            Maps in [0, 1] of the same kind, shape and device; float64 for float64 input, else float32. Pixels outside
            the domain are 0. A pixel that is source and sink at once is 1. A part of the domain with a source and no
            sink is 1; a part with no source is 0.

        Raises:
            ValueError: Fewer than two axes, a mask of another shape, or NaN or infinite intensities (the message
                names the frame's index).
        """
        if isinstance(frames, torch.Tensor):
            masks = [None if mask is None else _to_numpy(mask) for mask in (domain, source, sink)]
            maps = self._solve(_to_numpy(frames), *masks)
            return torch.from_numpy(maps).to(frames.device)
        masks = [None if mask is None else np.asarray(mask) for mask in (domain, source, sink)]
        return self._solve(np.asarray(frames), *masks)

    def _solve(
        self,
        frames: NDArray[np.generic],
        domain: NDArray[np.generic] | None,
        source: NDArray[np.generic] | None,
        sink: NDArray[np.generic] | None,
    ) -> NDArray[np.floating]:
        """Solve a batch of frames on all processors."""
        if frames.ndim < 2:
            raise ValueError(f"frames must have the axes (..., depth, lateral), found shape {frames.shape}.")
        dtype = np.float64 if frames.dtype == np.float64 else np.float32
        flat = frames.reshape(-1, *frames.shape[-2:])
        domains = _flat_mask("domain", domain, frames.shape)
        if domains is None:
            domains = np.ones(flat.shape, dtype=bool)
        _refuse_non_finite(flat, frames.shape[:-2])
        sources = _flat_mask("source", source, frames.shape)
        sinks = _flat_mask("sink", sink, frames.shape)
        sources = column_source(domains) if sources is None else sources & domains
        sinks = column_sink(domains) if sinks is None else sinks & domains

        maps = np.zeros(flat.shape, dtype=dtype)

        def solve_into(index: int) -> None:
            if domains[index].any():
                frame = flat[index].astype(np.float64)
                weights = edge_weights(frame, domains[index], self.alpha, self.beta, self.gamma)
                maps[index] = _random_walk(weights, domains[index], sources[index], sinks[index])

        # The factorisation releases the GIL, so threads over frames use every core and share the memory.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(solve_into, range(len(flat))))
        return maps.reshape(frames.shape)


def _random_walk(weights: EdgeWeights, domain: BoolArray, source: BoolArray, sink: BoolArray) -> FloatArray:
    """Solve the Dirichlet problem of one frame: 1 on ``source``, 0 on ``sink``, harmonic between."""
    parts, count = ndimage.label(domain, structure=np.ones((3, 3)))
    has_source = np.isin(np.arange(count + 1), parts[source])
    has_sink = np.isin(np.arange(count + 1), parts[sink])

    walk = (has_source & ~has_sink)[parts].astype(np.float64)
    walk[source] = 1.0
    unknown = domain & ~source & ~sink & (has_source & has_sink)[parts]
    if not unknown.any():
        return walk

    index = np.full(domain.shape, -1)
    index[unknown] = np.arange(np.count_nonzero(unknown))
    diagonal = np.zeros(domain.shape)
    known = np.zeros(domain.shape)
    rows, columns, values = [], [], []
    for name, (start, end) in EDGE_ENDS.items():
        weight = getattr(weights, name)
        for here, there in ((start, end), (end, start)):
            diagonal[here] += weight
            known[here] += weight * (source[there] & ~unknown[there])
            both = (index[here] >= 0) & (index[there] >= 0) & (weight > 0)
            rows.append(index[here][both])
            columns.append(index[there][both])
            values.append(-weight[both])
    number = np.arange(np.count_nonzero(unknown))
    matrix = coo_array(
        (
            np.concatenate([*values, diagonal[unknown]]),
            (np.concatenate([*rows, number]), np.concatenate([*columns, number])),
        )
    ).tocsc()
    # Symmetric mode with minimum degree ordering takes half the time of the default column ordering. Diagonal pivots
    # are safe: the matrix is symmetric, diagonally dominant and positive definite.
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    walk[unknown] = np.clip(factor.solve(known[unknown]), 0.0, 1.0)
    return walk


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.generic]:
    """Bring a tensor to the host; half precisions, which NumPy lacks or SciPy refuses, become float32."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    array: NDArray[np.generic] = tensor.cpu().numpy()
    return array


def _flat_mask(name: str, mask: NDArray[np.generic] | None, shape: tuple[int, ...]) -> BoolArray | None:
    """Broadcast a mask to the frames and flatten their leading axes."""
    if mask is None:
        return None
    try:
        mask = np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(f"{name} of shape {mask.shape} does not fit frames of shape {shape}.") from None
    flat: BoolArray = mask.reshape(-1, *shape[-2:]).astype(bool)
    return flat


def _refuse_non_finite(flat: NDArray[np.generic], leading: tuple[int, ...]) -> None:
    """Name the first frame that holds NaN or infinity."""
    finite = np.isfinite(flat).all(axis=(-2, -1))
    if not finite.all():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), leading)) if leading else ()
        place = f"frame {index}" if index else "the frame"
        raise ValueError(f"frames must be finite, found NaN or infinity in {place}.")
