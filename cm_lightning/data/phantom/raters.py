"""Simulated raters: labels that scatter around the true one by a chosen amount.

A label is the true one, bent by a smooth random displacement whose two components are independent Gaussian random
fields, so that a boundary is displaced along its normal by the chosen standard deviation whatever its direction.
All classes are bent together: they neither overlap nor tear apart, and neighbouring boundaries move together. Raters
draw in frames: nothing is displaced in elevation, and neighbouring frames are displaced alike.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from cm_lightning.data.phantom.anatomy import FloatArray
from cm_lightning.errors import InputError

KERNEL_REACH = 3.0  # in SDs of the smoothing kernel


@dataclass(frozen=True)
class SimulatedLabel:
    """A label that a simulated rater drew.

    Attributes:
        rater: Who drew it.
        repeat: Which of the rater's labels it is, from 1.
        label: Values of the true label, in its shape.
    """

    rater: str
    repeat: int
    label: NDArray[Any]


@dataclass(frozen=True)
class RaterModel:
    """Raters who label every image several times.

    The boundary that they draw scatters around the true one, along its normal, with the standard deviation
    ``sd + depth * (cm below the top of the picture) + confidence * (1 - confidence map)`` in mm. By default it is the
    same everywhere; confidence maps take part only where ``confidence`` is above 0.

    Args:
        raters: Number of raters.
        repeats: Labels of every image by each of them.
        sd: Part of the SD that is the same everywhere, in mm.
        depth: SD in mm that every cm of depth adds.
        confidence: SD in mm that is added where the confidence map is 0, and less in proportion where it is higher.
        between: Share of the variance that is a rater's own habit: the same in all labels of an image by one rater.
        coherence: Distance in mm at which displacements are correlated by exp(-1/2) = 0.61. It should be three times
            the SD or more; shorter, the displacement folds.
        seed: Seed of all raters.
        folder: Folder of the data set that the labels are written to, so that several models can lie side by side.

    Raises:
        InputError: A number is out of its range.
    """

    raters: int = 1
    repeats: int = 100
    sd: float = 1.0
    depth: float = 0.0
    confidence: float = 0.0
    between: float = 0.0
    coherence: float = 8.0
    seed: int = 0
    folder: str = "ratersTr"

    def __post_init__(self) -> None:
        """Refuse numbers that describe no raters."""
        if self.raters < 1 or self.repeats < 1:
            raise InputError(f"raters and repeats must be at least 1, found {self.raters} and {self.repeats}.")
        if min(self.sd, self.depth, self.confidence) < 0 or self.coherence <= 0 or not 0 <= self.between <= 1:
            raise InputError(
                "sd, depth and confidence of raters must not be negative, coherence must be positive and between lie "
                f"in [0, 1], found {self.sd}, {self.depth}, {self.confidence}, {self.coherence} and {self.between}."
            )

    def standard_deviation(
        self, shape: tuple[int, ...], spacing: Sequence[float], confidence: NDArray[np.floating[Any]] | None = None
    ) -> FloatArray:
        """Give the chosen standard deviation of the boundary at every pixel.

        Args:
            shape: Of the image, ``(depth, lateral[, elevation])``.
            spacing: Pixel size in mm in the order of the axes.
            confidence: Confidence map of that shape; needed only where the SD depends on it.

        Returns:
            SD in mm, of that shape.

        Raises:
            InputError: The SD depends on confidence and there is no map, or one of another shape.
        """
        centimetres = (np.arange(shape[0], dtype=np.float32) + 0.5) * spacing[0] / 10
        chosen = np.full(shape, self.sd, dtype=np.float32)
        chosen += (self.depth * centimetres).reshape(-1, *(1,) * (len(shape) - 1))
        if self.confidence > 0:
            if confidence is None or confidence.shape != shape:
                found = "none" if confidence is None else f"one of shape {confidence.shape}"
                raise InputError(f"Raters who follow confidence need a confidence map of shape {shape}, found {found}.")
            chosen += self.confidence * (1 - confidence)
        return chosen

    def draw(
        self,
        label: NDArray[Any],
        spacing: Sequence[float],
        image: str = "",
        confidence: NDArray[np.floating[Any]] | None = None,
        domain: NDArray[np.bool_] | None = None,
    ) -> Iterator[SimulatedLabel]:
        """Draw the labels of one image, one after another.

        A label depends on the seed, the image's name, its rater and its repeat, and not on how many are drawn. Beyond
        the picture's edge, and outside the domain, the true label goes on as it ends there.

        Args:
            label: The true label, any values with 0 for background, ``(depth, lateral[, elevation])``.
            spacing: Pixel size in mm in the order of the axes.
            image: Name of the image: other images get other displacements.
            confidence: Confidence map of the label's shape; needed only where the SD depends on it.
            domain: Insonified pixels, ``(depth, lateral)``, outside which labels are 0; all by default.

        Yields:
            The labels of the first rater, then those of the next.

        Raises:
            InputError: The SD depends on confidence and there is no map, or one of another shape.
        """
        volume = label[:, :, None] if label.ndim == 2 else label
        steps = (*spacing[:2], spacing[2] if label.ndim == 3 else 1.0)
        chosen = self.standard_deviation(label.shape, spacing, confidence).reshape(volume.shape)
        chosen = np.moveaxis(chosen, 2, 0)[..., None]
        bend, displacement = _Bending(volume, steps, domain), _Displacement(volume.shape, steps, self.coherence)
        number = int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest())
        shared, own = np.float32(np.sqrt(self.between)), np.float32(np.sqrt(1 - self.between))
        for rater in range(self.raters):
            habit = displacement([self.seed, number, rater, 0])  # repeats count from 1
            for repeat in range(1, self.repeats + 1):
                field = shared * habit + own * displacement([self.seed, number, rater, repeat])
                yield SimulatedLabel(f"rater{rater + 1}", repeat, bend(chosen * field).reshape(label.shape))


class _Bending:
    """Bends a label within its frames.

    Signed distances of the classes are interpolated at the displaced positions and the class of the smallest is taken,
    so that boundaries move by fractions of a pixel.
    """

    def __init__(self, volume: NDArray[Any], steps: tuple[float, ...], domain: NDArray[np.bool_] | None) -> None:
        self._domain = domain
        if domain is not None:
            nearest = ndimage.distance_transform_edt(
                ~domain, sampling=steps[:2], return_distances=False, return_indices=True
            )
            volume = volume[tuple(nearest)]
        self._values = np.unique(volume)
        distances = np.stack([_signed_distance(volume == value, steps) for value in self._values])
        self._distances = torch.from_numpy(np.ascontiguousarray(distances.transpose(3, 0, 1, 2)))
        # In torch's units a picture's sides are 2, and lateral comes first.
        self._unit = torch.tensor([2 / (volume.shape[1] * steps[1]), 2 / (volume.shape[0] * steps[0])])
        identity = torch.eye(2, 3).expand(len(self._distances), 2, 3)
        self._grid = F.affine_grid(identity, list(self._distances.shape), align_corners=False)

    def __call__(self, displacement: FloatArray) -> NDArray[Any]:
        """Move what is at a position by the displacement in mm, ``(elevation, depth, lateral, 2)``, lateral first."""
        where = self._grid - torch.from_numpy(displacement) * self._unit
        distances = F.grid_sample(self._distances, where, padding_mode="border", align_corners=False).numpy()
        smallest = distances[:, 0]
        bent = np.full(smallest.shape, self._values[0])
        for value, distance in zip(self._values[1:], np.moveaxis(distances, 1, 0)[1:], strict=True):
            bent[distance < smallest] = value  # several times as fast as argmin
            smallest = np.minimum(smallest, distance)
        bent = np.moveaxis(bent, 0, 2)
        if self._domain is not None:
            bent[~self._domain] = 0
        return bent


def _signed_distance(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> FloatArray:
    """Distance in mm to a class within its frame, negative inside."""
    far = np.hypot(mask.shape[0] * steps[0], mask.shape[1] * steps[1])
    distance = np.empty(mask.shape, dtype=np.float32)
    for frame in range(mask.shape[2]):
        inside = mask[:, :, frame]
        if inside.all() or not inside.any():
            distance[:, :, frame] = -far if inside.all() else far
            continue
        outer, inner = (ndimage.distance_transform_edt(side, sampling=steps[:2]) for side in (~inside, inside))
        distance[:, :, frame] = outer - inner
    return distance


class _Displacement:
    """Two independent Gaussian random fields of mean 0 and variance 1, correlated by ``exp(-d² / 2 coherence²)``.

    White noise on a grid of nodes, smoothed with a Gaussian along every axis. The weights of the nodes at every pixel
    have squares that sum to 1, so that the variance is 1 everywhere, at the edges as well.
    """

    def __init__(self, shape: tuple[int, ...], steps: tuple[float, ...], coherence: float) -> None:
        # Smoothing white noise with a Gaussian makes the correlation wider by the root of 2.
        self._weights = [_kernel(n, step, coherence / np.sqrt(2)) for n, step in zip(shape, steps, strict=True)]
        self._nodes = [weights.shape[1] for weights in self._weights]

    def __call__(self, seed: list[int]) -> FloatArray:
        """Draw the two fields, ``(elevation, depth, lateral, 2)``."""
        noise = np.random.default_rng(seed).standard_normal((*self._nodes, 2), dtype=np.float32)
        depth, lateral, elevation = self._weights
        return np.einsum(
            "ijkc,ek,di,lj->edlc", noise, elevation, depth, lateral, optimize=["einsum_path", (0, 1), (0, 2), (0, 1)]
        )


def _kernel(pixels: int, step: float, width: float) -> FloatArray:
    """Weights of nodes ``width`` apart at the pixels of an axis, ``(pixels, nodes)``."""
    nodes = np.arange(-KERNEL_REACH, pixels * step / width + KERNEL_REACH + 1) * width
    centres = (np.arange(pixels) + 0.5) * step
    kernel = np.exp(-((centres[:, None] - nodes[None, :]) ** 2) / (2 * width**2))
    return (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)
