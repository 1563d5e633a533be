"""Training augmentation of whole batches, on the batch's device.

Intensity first (what a sonographer's knobs do), then the confidence map where it is computed on the fly, then geometry
on image, map and label together. Ultrasound is never flipped up-down: depth has a meaning.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.errors import InputError

Batch = dict[str, Any]

# Keys that geometry moves, and how their values are interpolated.
INTERPOLATION = {"image": "bilinear", "confidence": "bilinear", "label": "nearest", "domain": "nearest"}
DYNAMIC_RANGE = 60.0  # dB that the grey values of a log-compressed image span


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training batches; everything at 0 changes nothing.

    Images are log-compressed grey values in [0, 1], so that a gain in dB is added. Each sample draws its own values
    from torch's generator.

    Args:
        gain: SD of the overall gain in dB.
        time_gain: SD of the gain in dB of eight depth sliders, interpolated between.
        speckle: SD of multiplicative noise in dB, correlated over about two pixels.
        flip: Probability of a lateral flip; leave it at 0 where classes are named by their side, as medial and lateral
            heads are.
        rotation: Largest rotation in the frame's plane in degrees.
        scaling: Largest relative change of size.
        elastic: SD of a smooth displacement as a share of the frame.

    Raises:
        InputError: A value is negative, or the flip is no probability.
    """

    gain: float = 3.0
    time_gain: float = 2.0
    speckle: float = 1.0
    flip: float = 0.0
    rotation: float = 8.0
    scaling: float = 0.1
    elastic: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise InputError(f"{name} of the augmentation must be at least 0, found {getattr(self, name)}.")
        if self.flip > 1 or self.scaling >= 1:
            raise InputError(f"flip must be at most 1 and scaling below 1, found {self.flip} and {self.scaling}.")

    def intensity(self, batch: Batch) -> Batch:
        """Change gain, time gain and speckle inside the domain.

        Args:
            batch: ``image`` of shape ``(B, 1, depth, lateral[, elevation])`` in [0, 1], and ``domain`` of the same
                shape.

        Returns:
            A batch with another image; black bands stay black.
        """
        image = batch["image"]
        size, dims = image.shape[0], image.ndim - 2
        change = torch.zeros_like(image)
        if self.gain:
            change += self.gain * torch.randn((size, 1) + (1,) * dims, device=image.device)
        if self.time_gain:
            sliders = self.time_gain * torch.randn((size, 1, 8), device=image.device)
            curve = F.interpolate(sliders, size=image.shape[2], mode="linear", align_corners=True)
            change += curve.reshape(size, 1, -1, *(1,) * (dims - 1))
        if self.speckle:
            change += self.speckle * _correlated_noise(image)
        changed = (image + change / DYNAMIC_RANGE).clamp(0, 1)
        return {**batch, "image": torch.where(batch["domain"].bool(), changed, image)}

    def geometry(self, batch: Batch) -> Batch:
        """Flip, rotate, scale and bend image, map, label and domain together, with one interpolation.

        Args:
            batch: Entries of :data:`INTERPOLATION` of shape ``(B, 1, depth, lateral[, elevation])``, and ``spacing``
                of shape ``(B, dims)``, so that a rotation stays one on pixels that are not square.

        Returns:
            A batch with moved entries; what comes from outside the frame is 0.
        """
        if not (self.flip or self.rotation or self.scaling or self.elastic):
            return batch
        image = batch["image"]
        grid = self._grid(image, batch["spacing"].to(image.device, torch.float32))
        moved = {}
        for key, mode in INTERPOLATION.items():
            if key in batch:
                value = batch[key]
                sampled = F.grid_sample(value.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)
                moved[key] = sampled.to(value.dtype)
        return {**batch, **moved}

    def _grid(self, image: Tensor, spacing: Tensor) -> Tensor:
        """Sampling grid of ``grid_sample``, whose last axis counts the image's axes from the last to the first."""
        size, dims, device = image.shape[0], image.ndim - 2, image.device
        angle = torch.deg2rad(self.rotation * (2 * torch.rand(size, device=device) - 1))
        scale = 1 + self.scaling * (2 * torch.rand(size, device=device) - 1)
        mirror = 1 - 2 * (torch.rand(size, device=device) < self.flip).float()
        extent = spacing * torch.tensor(image.shape[2:], device=device)
        aspect = extent[:, 0] / extent[:, 1]

        # grid_sample's coordinates are in reverse axis order: lateral and depth are the last two columns.
        lateral, depth = dims - 2, dims - 1
        affine = torch.zeros(size, dims, dims + 1, device=device)
        affine[:, range(dims), range(dims)] = 1.0
        affine[:, lateral, lateral] = mirror * torch.cos(angle) / scale
        affine[:, lateral, depth] = -mirror * torch.sin(angle) * aspect / scale
        affine[:, depth, lateral] = torch.sin(angle) / aspect / scale
        affine[:, depth, depth] = torch.cos(angle) / scale
        grid = F.affine_grid(affine, list(image.shape), align_corners=False)
        if self.elastic:
            # A share of the frame is twice as much in grid_sample's coordinates, which run from -1 to 1.
            grid = grid + 2 * self.elastic * _smooth_noise(size, dims, image)
        return grid


def _smooth_noise(size: int, channels: int, image: Tensor, waves: int = 4) -> Tensor:
    """Smooth random fields of unit SD, ``(size, *spatial, channels)``: random sums of the lowest cosine waves."""
    dims = image.ndim - 2
    field = torch.randn((size, channels, *(waves,) * dims), device=image.device)
    for axis, length in enumerate(image.shape[2:], start=2):
        position = (torch.arange(length, device=image.device) + 0.5) / length
        wave = torch.cos(torch.pi * torch.arange(waves, device=image.device)[:, None] * position)
        field = torch.movedim(torch.tensordot(field, wave, dims=([axis], [0])), -1, axis)
    return field.movedim(1, -1) / (1 + (waves - 1) / 2) ** (dims / 2)


def _correlated_noise(image: Tensor) -> Tensor:
    """Normal noise of unit SD, smoothed over three pixels along depth and lateral."""
    noise = torch.randn_like(image)
    kernel = torch.tensor([0.25, 0.5, 0.25], device=image.device)
    for axis in (2, 3):
        moved = noise.movedim(axis, -1)
        smooth = F.conv1d(moved.reshape(-1, 1, moved.shape[-1]), kernel.reshape(1, 1, 3), padding=1)
        noise = smooth.reshape(moved.shape).movedim(-1, axis)
    return noise / noise.std().clamp_min(1e-6)
