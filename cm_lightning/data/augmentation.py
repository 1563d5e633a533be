"""Augmentation of training batches on their device.

Intensities are changed first (as by the controls of a scanner), then confidence maps are computed if this is done on
the fly, and then image, map and label are transformed together. Images are not flipped vertically, because depth has a
physical meaning.
"""

from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensityFixedMean,
    RandSimulateLowResolution,
)
from torch import Tensor
from torch.nn import functional as F

from cm_lightning.errors import InputError

Batch = dict[str, Any]

# Entries that are transformed geometrically, with their interpolation.
INTERPOLATION = {"image": "bilinear", "confidence": "bilinear", "label": "nearest", "domain": "nearest"}
# Dynamic range in dB of the grey values of a log-compressed image.
DYNAMIC_RANGE = 60.0
# Ranges of nnU-Net: SD of a blur in pixels, relative size at a low resolution, relative contrast, and exponents of
# grey values. Noise has an SD of up to 0.06, which is nnU-Net's for images with an SD of 0.2.
BLUR = (0.5, 1.0)
ZOOM = (0.5, 1.0)
CONTRAST = 0.25
GAMMA = (0.7, 1.5)
NOISE = 0.06


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training batches. A value of 0 switches the corresponding change off.

    Images are log-compressed grey values from 0 to 1, so a gain in dB is additive. Every image has its own random
    values.

    Args:
        gain: SD of the overall gain in dB.
        time_gain: SD of the gain in dB at eight depths, between which it is interpolated linearly.
        speckle: SD of multiplicative noise in dB, which is correlated over about two pixels.
        flip: Probability of a lateral flip. It should be 0 if classes depend on the side, such as medial and lateral
            muscle heads.
        rotation: Maximum rotation within the frame in degrees.
        scaling: Maximum relative change of size.
        elastic: SD of a smooth displacement relative to the frame size.
        noise: Probability of white noise, as of the electronics.
        blur: Probability of a blur.
        low_resolution: Probability of a loss of resolution: the image is made smaller and enlarged again.
        contrast: Probability of a change of contrast around the mean.
        gamma: Probability of a power of the grey values, which keeps mean and SD.

    Raises:
        InputError: A value is negative, or a probability or the scaling is too large.

    References:
        Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
        Nature Methods 2021, for the ranges of noise, blur, resolution, contrast and gamma.
    """

    gain: float = 3.0
    time_gain: float = 2.0
    speckle: float = 1.0
    flip: float = 0.0
    rotation: float = 8.0
    scaling: float = 0.1
    elastic: float = 0.01
    noise: float = 0.0
    blur: float = 0.0
    low_resolution: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 0:
                raise InputError(f"{name} of the augmentation must be at least 0, found {getattr(self, name)}.")
        if self.flip > 1 or self.scaling >= 1:
            raise InputError(f"flip must be at most 1 and scaling below 1, found {self.flip} and {self.scaling}.")
        for name in ("noise", "blur", "low_resolution", "contrast", "gamma"):
            if getattr(self, name) > 1:
                raise InputError(
                    f"{name} of the augmentation is a probability and must be at most 1, found {getattr(self, name)}."
                )

    def intensity(self, batch: Batch) -> Batch:
        """Change gain, time gain compensation, speckle and the quality of images inside the insonified region.

        Args:
            batch: Batch with ``image``, from 0 to 1, and ``domain``, ``(B, 1, depth, lateral[, elevation])`` each.

        Returns:
            Batch with the augmented image, which does not change outside the domain.
        """
        image = batch["image"]
        size, dims = image.shape[0], image.ndim - 2
        decibel = torch.zeros_like(image)
        if self.gain:
            decibel += self.gain * torch.randn((size, 1) + (1,) * dims, device=image.device)
        if self.time_gain:
            sliders = self.time_gain * torch.randn((size, 1, 8), device=image.device)
            curve = F.interpolate(sliders, size=image.shape[2], mode="linear", align_corners=True)
            decibel += curve.reshape(size, 1, -1, *(1,) * (dims - 1))
        if self.speckle:
            decibel += self.speckle * _correlated_noise(image)
        augmented = self._change_quality((image + decibel / DYNAMIC_RANGE).clamp(0, 1))
        return {**batch, "image": torch.where(batch["domain"].bool(), augmented, image)}

    def _change_quality(self, images: Tensor) -> Tensor:
        """Add noise, blur images, and change resolution, contrast and gamma, each at random."""
        if not (self.noise or self.blur or self.low_resolution or self.contrast or self.gamma):
            return images
        upsampling = "bilinear" if images.ndim == 4 else "trilinear"
        change = Compose(
            [
                RandGaussianNoise(self.noise, std=NOISE),
                RandGaussianSmooth(BLUR, BLUR, BLUR, prob=self.blur),
                RandScaleIntensityFixedMean(self.contrast, factors=CONTRAST, preserve_range=True),
                RandSimulateLowResolution(self.low_resolution, upsample_mode=upsampling, zoom_range=ZOOM),
                # As in nnU-Net, a quarter of the changes are those of the inverted image.
                RandAdjustContrast(self.gamma / 4, GAMMA, invert_image=True, retain_stats=True),
                RandAdjustContrast(self.gamma, GAMMA, retain_stats=True),
            ]
        )
        change.set_random_state(seed=int(torch.randint(2**31, (1,))))
        # MONAI returns tensors with metadata, which would slow down the network.
        return torch.stack([change(image).as_tensor() for image in images]).clamp(0, 1)

    def geometry(self, batch: Batch) -> Batch:
        """Flip, rotate, scale and deform image, map, label and domain together, with a single interpolation.

        Args:
            batch: Batch with the entries of :data:`INTERPOLATION`, ``(B, 1, depth, lateral[, elevation])`` each, and
                with ``spacing``, ``(B, dims)``, for rotations of images with anisotropic pixels.

        Returns:
            Batch with transformed entries, which are 0 outside the original frame.
        """
        if not (self.flip or self.rotation or self.scaling or self.elastic):
            return batch
        image = batch["image"]
        grid = self._grid(image, batch["spacing"].to(image.device, torch.float32))
        transformed = {}
        for key, mode in INTERPOLATION.items():
            if key in batch:
                value = batch[key]
                sampled = F.grid_sample(value.float(), grid, mode=mode, padding_mode="zeros", align_corners=False)
                transformed[key] = sampled.to(value.dtype)
        return {**batch, **transformed}

    def _grid(self, image: Tensor, spacing: Tensor) -> Tensor:
        """Return the sampling grid of ``grid_sample``, in which the coordinates are in reverse order of the axes."""
        size, dims, device = image.shape[0], image.ndim - 2, image.device
        angle = torch.deg2rad(self.rotation * (2 * torch.rand(size, device=device) - 1))
        scale = 1 + self.scaling * (2 * torch.rand(size, device=device) - 1)
        mirror = 1 - 2 * (torch.rand(size, device=device) < self.flip).float()
        extent = spacing * torch.tensor(image.shape[2:], device=device)
        aspect = extent[:, 0] / extent[:, 1]

        # In this order, lateral and depth are the last two coordinates.
        lateral, depth = dims - 2, dims - 1
        affine = torch.zeros(size, dims, dims + 1, device=device)
        affine[:, range(dims), range(dims)] = 1.0
        affine[:, lateral, lateral] = mirror * torch.cos(angle) / scale
        affine[:, lateral, depth] = -mirror * torch.sin(angle) * aspect / scale
        affine[:, depth, lateral] = torch.sin(angle) / aspect / scale
        affine[:, depth, depth] = torch.cos(angle) / scale
        grid = F.affine_grid(affine, list(image.shape), align_corners=False)
        if self.elastic:
            # The coordinates run from -1 to 1 over the frame, which is the reason for the factor 2.
            grid = grid + 2 * self.elastic * _smooth_noise(size, dims, image)
        return grid


def _smooth_noise(size: int, channels: int, image: Tensor, waves: int = 4) -> Tensor:
    """Return smooth random fields of unit SD, ``(size, *spatial, channels)``: random sums of low-frequency cosines."""
    dims = image.ndim - 2
    field = torch.randn((size, channels, *(waves,) * dims), device=image.device)
    for axis, length in enumerate(image.shape[2:], start=2):
        position = (torch.arange(length, device=image.device) + 0.5) / length
        wave = torch.cos(torch.pi * torch.arange(waves, device=image.device)[:, None] * position)
        field = torch.movedim(torch.tensordot(field, wave, dims=([axis], [0])), -1, axis)
    return field.movedim(1, -1) / (1 + (waves - 1) / 2) ** (dims / 2)


def _correlated_noise(image: Tensor) -> Tensor:
    """Return normal noise of unit SD that is smoothed over three pixels in depth and lateral direction."""
    noise = torch.randn_like(image)
    kernel = torch.tensor([0.25, 0.5, 0.25], device=image.device)
    for axis in (2, 3):
        lines = noise.movedim(axis, -1)
        smooth = F.conv1d(lines.reshape(-1, 1, lines.shape[-1]), kernel.reshape(1, 1, 3), padding=1)
        noise = smooth.reshape(lines.shape).movedim(-1, axis)
    return noise / noise.std().clamp_min(1e-6)
