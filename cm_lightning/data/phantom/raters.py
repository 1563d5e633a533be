"""Simulated raters with labels that vary around the true label by a given standard deviation (SD).

A rater's label is the true label, deformed by a smooth random displacement. The two components of this displacement are
independent Gaussian random fields, so the displacement of a boundary along its normal has the same standard
deviation in all directions. All classes are deformed together, so that they do not overlap or separate. Displacements
are within frames and similar in neighbouring frames.
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

# Distance by which the nodes of the smoothing kernel extend beyond the image on each side, in standard deviations.
KERNEL_REACH = 3.0


@dataclass(frozen=True)
class SimulatedLabel:
    """Label of a simulated rater.

    Attributes:
        rater: Name of the rater.
        repeat: Number of the label by this rater, from 1.
        label: Label with the same values and the same shape as the true label.
    """

    rater: str
    repeat: int
    label: NDArray[Any]


@dataclass(frozen=True)
class RaterModel:
    """Model of raters who label every image several times.

    The standard deviation (SD) of their boundaries along the normal of the true boundary is ``sd + depth * (depth below
    the top of the image in cm) + confidence * (1 - confidence map)`` in mm. By default, it is constant and does not
    depend on confidence.

    Args:
        raters: Number of raters.
        repeats: Number of labels per image and rater.
        sd: Constant part of the SD in mm.
        depth: Increase of the SD in mm per cm of depth.
        confidence: Increase of the SD in mm between a confidence of 1 and 0.
        between: Fraction of the variance that is inter-rater variance, from 0 to 1. This part of the displacement is
            the same in all labels of an image by one rater.
        coherence: Distance in mm at which the correlation of displacements is exp(-1/2) = 0.61. It should be at least
            three times the SD, because the displacement folds otherwise.
        seed: Seed of the random generators of all raters.
        folder: Folder of the labels in the data set. Several models can have different folders.

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
        """Check the numbers."""
        if self.raters < 1 or self.repeats < 1:
            raise InputError(f"raters and repeats must be at least 1, found {self.raters} and {self.repeats}.")
        if min(self.sd, self.depth, self.confidence) < 0 or self.coherence <= 0 or not 0 <= self.between <= 1:
            raise InputError(
                "sd, depth and confidence of raters must be at least 0, coherence must be above 0 and between must be "
                f"from 0 to 1; found {self.sd}, {self.depth}, {self.confidence}, {self.coherence} and {self.between}."
            )

    def standard_deviation(
        self, shape: tuple[int, ...], spacing: Sequence[float], confidence: NDArray[np.floating[Any]] | None = None
    ) -> FloatArray:
        """Compute the standard deviation of the boundary at every pixel.

        Args:
            shape: Shape of the image, ``(depth, lateral[, elevation])``.
            spacing: Pixel size in mm in the order of the axes.
            confidence: Confidence map from 0 to 1, ``(depth, lateral[, elevation])``; only needed if the SD depends on
                it.

        Returns:
            SD in mm, ``(depth, lateral[, elevation])``.

        Raises:
            InputError: The SD depends on confidence, but the map is missing or has another shape.
        """
        centimetres = (np.arange(shape[0], dtype=np.float32) + 0.5) * spacing[0] / 10
        sd = np.full(shape, self.sd, dtype=np.float32)
        sd += (self.depth * centimetres).reshape(-1, *(1,) * (len(shape) - 1))
        if self.confidence > 0:
            if confidence is None or confidence.shape != shape:
                actual = "none" if confidence is None else f"the shape {confidence.shape}"
                raise InputError(
                    f"Raters that depend on confidence need a confidence map of the shape {shape}, found {actual}."
                )
            sd += self.confidence * (1 - confidence)
        return sd

    def draw(
        self,
        label: NDArray[Any],
        spacing: Sequence[float],
        image: str = "",
        confidence: NDArray[np.floating[Any]] | None = None,
        domain: NDArray[np.bool_] | None = None,
    ) -> Iterator[SimulatedLabel]:
        """Draw the labels of one image, one by one.

        A label depends on the seed, the name of the image, the rater and the repeat, but not on the numbers of raters
        and repeats. The true label is extrapolated outside the image and outside the domain by its nearest value.

        Args:
            label: True label with 0 for background, ``(depth, lateral[, elevation])``.
            spacing: Pixel size in mm in the order of the axes.
            image: Name of the image, from which the displacements are seeded.
            confidence: Confidence map from 0 to 1, ``(depth, lateral[, elevation])``; only needed if the SD depends on
                it.
            domain: Insonified pixels, ``(depth, lateral)``, outside which labels are 0; all by default.

        Yields:
            Simulated labels, ordered by rater and repeat.

        Raises:
            InputError: The SD depends on confidence, but the map is missing or has another shape.
        """
        volume = label[:, :, None] if label.ndim == 2 else label
        steps = (*spacing[:2], spacing[2] if label.ndim == 3 else 1.0)
        sd = self.standard_deviation(label.shape, spacing, confidence).reshape(volume.shape)
        sd = np.moveaxis(sd, 2, 0)[..., None]
        deform, displacement = _Deformation(volume, steps, domain), _Displacement(volume.shape, steps, self.coherence)
        image_number = int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest())
        between_scale, within_scale = np.float32(np.sqrt(self.between)), np.float32(np.sqrt(1 - self.between))
        for rater in range(self.raters):
            # Repeats are numbered from 1, so that 0 is free for the part that all labels of a rater have in common.
            rater_field = displacement([self.seed, image_number, rater, 0])
            for repeat in range(1, self.repeats + 1):
                repeat_field = displacement([self.seed, image_number, rater, repeat])
                field = between_scale * rater_field + within_scale * repeat_field
                yield SimulatedLabel(f"rater{rater + 1}", repeat, deform(sd * field).reshape(label.shape))


class _Deformation:
    """Deformation of a label within its frames.

    The signed distances to all classes are interpolated at the displaced positions, and the class with the smallest
    distance is assigned, so boundaries can move by fractions of a pixel.
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
        # The coordinates of grid_sample range from -1 to 1 over the image, in the order (lateral, depth).
        self._unit = torch.tensor([2 / (volume.shape[1] * steps[1]), 2 / (volume.shape[0] * steps[0])])
        identity = torch.eye(2, 3).expand(len(self._distances), 2, 3)
        self._grid = F.affine_grid(identity, list(self._distances.shape), align_corners=False)

    def __call__(self, displacement: FloatArray) -> NDArray[Any]:
        """Deform the label by displacements in mm, ``(elevation, depth, lateral, 2)`` with (lateral, depth) last."""
        positions = self._grid - torch.from_numpy(displacement) * self._unit
        distances = F.grid_sample(self._distances, positions, padding_mode="border", align_corners=False).numpy()
        smallest = distances[:, 0]
        deformed = np.full(smallest.shape, self._values[0])
        for value, distance in zip(self._values[1:], np.moveaxis(distances, 1, 0)[1:], strict=True):
            deformed[distance < smallest] = value  # several times as fast as argmin
            smallest = np.minimum(smallest, distance)
        deformed = np.moveaxis(deformed, 0, 2)
        if self._domain is not None:
            deformed[~self._domain] = 0
        return deformed


def _signed_distance(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> FloatArray:
    """Return the signed distance in mm to a class within each frame, negative inside."""
    largest = np.hypot(mask.shape[0] * steps[0], mask.shape[1] * steps[1])
    distance = np.empty(mask.shape, dtype=np.float32)
    for frame in range(mask.shape[2]):
        inside = mask[:, :, frame]
        if inside.all() or not inside.any():
            distance[:, :, frame] = -largest if inside.all() else largest
            continue
        outer, inner = (ndimage.distance_transform_edt(side, sampling=steps[:2]) for side in (~inside, inside))
        distance[:, :, frame] = outer - inner
    return distance


class _Displacement:
    """Two independent Gaussian random fields with mean 0, variance 1 and correlation ``exp(-d² / (2 coherence²))``.

    White noise on a grid of nodes is smoothed with a Gaussian along every axis. At every pixel, the squared weights of
    the nodes sum to 1, so the variance is 1 everywhere, including the edges.
    """

    def __init__(self, shape: tuple[int, ...], steps: tuple[float, ...], coherence: float) -> None:
        # The correlation length of smoothed white noise is sqrt(2) times the width of the Gaussian.
        self._weights = [_kernel(n, step, coherence / np.sqrt(2)) for n, step in zip(shape, steps, strict=True)]
        self._nodes = [weights.shape[1] for weights in self._weights]

    def __call__(self, seed: list[int]) -> FloatArray:
        """Draw both fields, ``(elevation, depth, lateral, 2)``."""
        noise = np.random.default_rng(seed).standard_normal((*self._nodes, 2), dtype=np.float32)
        depth, lateral, elevation = self._weights
        return np.einsum(
            "ijkc,ek,di,lj->edlc", noise, elevation, depth, lateral, optimize=["einsum_path", (0, 1), (0, 2), (0, 1)]
        )


def _kernel(pixels: int, step: float, width: float) -> FloatArray:
    """Return the weights of nodes with a spacing of ``width`` at the pixels of an axis, ``(pixels, nodes)``."""
    nodes = np.arange(-KERNEL_REACH, pixels * step / width + KERNEL_REACH + 1) * width
    centres = (np.arange(pixels) + 0.5) * step
    kernel = np.exp(-((centres[:, None] - nodes[None, :]) ** 2) / (2 * width**2))
    return (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)
