"""Tissue, water baths and artefacts in beam coordinates, for synthetic screens."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from cm_lightning.errors import InputError
from cm_lightning.io import image_files, read_image

FloatArray = NDArray[np.float32]

# Simulated speckle textures of a bank, and their side length in pixels.
SIMULATED_TEXTURES = 64
SIMULATED_SIDE = 512


class TissueTextures:
    """Bank of textures: simulated speckle, and the central parts of real images.

    Args:
        folders: Folders with images of tissue, of which the central parts are used. Parts at the borders are left out,
            because they may show the background of a screen.
        exclude: Regular expression for names of files that are left out.
        seed: Seed of the simulated speckle.

    Raises:
        InputError: A folder contains no image with tissue.
    """

    def __init__(self, folders: Sequence[Path] = (), exclude: str | None = None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.simulated = [_speckle(rng) for _ in range(SIMULATED_TEXTURES)]
        self.real = [texture for folder in folders for texture in _real_textures(Path(folder), exclude)]

    def draw(self, rng: np.random.Generator, depth: int, lateral: int) -> FloatArray:
        """Draw a texture at a random position, scale and contrast.

        Args:
            rng: Random number generator.
            depth: Number of rows.
            lateral: Number of columns.

        Returns:
            Intensities of about 0 to 255, ``(depth, lateral)``.
        """
        if self.real and rng.random() < 0.6:
            texture = _cut(rng, self.real[rng.integers(len(self.real))], depth, lateral)
            if rng.random() < 0.5:
                texture = texture * np.exp(smooth_field(rng, (depth, lateral), rng.integers(1, 7, 2), 0.35))
            return texture
        decibels: FloatArray = _cut(rng, self.simulated[rng.integers(len(self.simulated))], depth, lateral)
        for cells in (2, 5, 14):
            stretch = rng.uniform(1, 3)
            decibels += smooth_field(rng, (depth, lateral), (cells * stretch, cells), rng.uniform(0, 9))
        if rng.random() < 0.4:  # layers
            decibels += smooth_field(rng, (depth, lateral), (rng.integers(5, 25), 2), rng.uniform(3, 9))
        dynamic_range = rng.uniform(30, 70)
        return np.clip(decibels / dynamic_range + rng.uniform(0.35, 0.75), 0, 1.2) * np.float32(255)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cells: Any, sd: float) -> FloatArray:
    """Draw a smooth random field.

    Args:
        rng: Random number generator.
        shape: Shape of the field.
        cells: Number of independent values along each axis, two numbers.
        sd: Standard deviation.

    Returns:
        Field with mean 0, ``shape``.
    """
    coarse = rng.normal(0, sd, tuple(max(2, int(n)) + 1 for n in cells)).astype(np.float32)
    return resize(coarse, shape, "bicubic")


def resize(array: FloatArray, shape: tuple[int, int], mode: str = "bilinear") -> FloatArray:
    """Resample an array to another shape with the same extent.

    Args:
        array: Array, ``(rows, columns)``.
        shape: New shape.
        mode: Interpolation mode of :func:`torch.nn.functional.interpolate`.

    Returns:
        Resampled array, ``shape``.
    """
    options = {} if mode in ("area", "nearest") else {"align_corners": False}
    return F.interpolate(torch.from_numpy(array)[None, None], shape, mode=mode, **options)[0, 0].numpy()


def resample(array: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """Read an array at relative positions by linear interpolation.

    Args:
        array: Array, ``(rows, columns)``.
        rows: Positions along the rows from 0 to 1, any shape.
        columns: Positions along the columns from 0 to 1, the same shape.

    Returns:
        Values, the same shape.
    """
    grid = torch.from_numpy(np.stack([columns, rows], -1) * np.float32(2) - np.float32(1))[None]
    values = F.grid_sample(
        torch.from_numpy(np.ascontiguousarray(array))[None, None], grid, padding_mode="border", align_corners=False
    )
    return values[0, 0].numpy()


def draw_echoes(
    rng: np.random.Generator, textures: TissueTextures, depth: int, lateral: int, bath: float = 0.22
) -> FloatArray:
    """Draw the echoes of a probe: tissue with artefacts, or a water bath with a few targets.

    Args:
        rng: Random number generator.
        textures: Textures of the tissue.
        depth: Number of samples along the beams.
        lateral: Number of beams.
        bath: Probability of a water bath.

    Returns:
        Intensities from 0 to 255 in beam coordinates, ``(depth, lateral)``.
    """
    depth_fraction = np.linspace(0, 1, depth, dtype=np.float32)[:, None]
    beam_fraction = np.linspace(0, 1, lateral, dtype=np.float32)[None]
    echoes = textures.draw(rng, depth, lateral)
    echoes = (
        _water_bath(rng, echoes, depth_fraction, beam_fraction)
        if rng.random() < bath
        else _tissue(rng, echoes, depth_fraction, beam_fraction)
    )
    if rng.random() < 0.15:
        echoes = echoes * rng.uniform(0.15, 0.6)
    if rng.random() < 0.12:  # noise of the electronics, which may increase with depth
        echoes = echoes + rng.uniform(2, 25) * (1 if rng.random() < 0.5 else depth_fraction)
    if rng.random() < 0.06:
        echoes = np.clip(echoes, 0, 255) ** rng.uniform(0.7, 1.1)
    return np.clip(echoes, 0, 255).astype(np.float32)


def _tissue(
    rng: np.random.Generator, echoes: FloatArray, depth_fraction: FloatArray, beam_fraction: FloatArray
) -> FloatArray:
    """Apply attenuation, shadows, cysts, loss of contact and near-field echoes to a texture."""
    shape = echoes.shape
    if rng.random() < 0.8:
        echoes = echoes * (rng.uniform(12, 95) / max(8, echoes.mean()))
    if rng.random() < 0.35:
        echoes = np.maximum(echoes - rng.uniform(3, 35), 0)
    if rng.random() < 0.5:  # attenuation
        start = rng.uniform(0.1, 0.9)
        factor = np.clip(1 - (depth_fraction - start) / rng.uniform(0.1, 0.9), 0, 1)
        echoes = echoes * np.maximum(factor, rng.choice([0, 0, 0.2, 0.5]))
    if rng.random() < 0.2:  # dark near field
        echoes = echoes * np.clip(depth_fraction / rng.uniform(0.05, 0.5) + rng.uniform(0, 0.5), 0, 1)
    if rng.random() < 0.3:  # a side without contact
        side = np.clip((beam_fraction - rng.uniform(0, 0.45)) / rng.uniform(0.01, 0.3) + 0.5, 0, 1)
        side = np.maximum(side, rng.choice([0, 0, 0.1, 0.3]))
        echoes = echoes * (side if rng.random() < 0.5 else side[:, ::-1])
    if rng.random() < 0.25:  # dark sides
        echoes = echoes * np.clip(
            np.minimum(beam_fraction, 1 - beam_fraction) / rng.uniform(0.05, 0.35) + rng.uniform(0, 0.3), 0, 1
        )
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):  # shadows
        width = np.clip(1.5 - np.abs(beam_fraction - rng.random()) / rng.uniform(0.02, 0.15), 0, 1)
        echoes = echoes * (1 - width * np.clip((depth_fraction - rng.uniform(0, 0.7)) * 20, 0, 1) * rng.uniform(0.6, 1))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3, 5])):  # cysts and vessels
        rows, columns = (
            (depth_fraction - rng.random()) / rng.uniform(0.02, 0.25),
            (beam_fraction - rng.random()) / rng.uniform(0.02, 0.3),
        )
        distance = np.hypot(rows + columns * rng.uniform(-0.4, 0.4), columns)
        echoes = echoes * (1 - np.clip((1 - distance) * rng.uniform(3, 20), 0, 1) * rng.uniform(0.8, 1))
    for _ in range(rng.choice([0, 0, 1, 3, 6])):  # fasciae, diaphragm and bones
        line = np.abs(depth_fraction - rng.random() - (beam_fraction - 0.5) * rng.uniform(-0.3, 0.3)) / rng.uniform(
            0.002, 0.012
        )
        part = np.clip(3 - np.abs(beam_fraction - rng.random()) / rng.uniform(0.03, 0.3), 0, 1)
        echoes = echoes + np.exp(-(line**2)) * part * rng.uniform(40, 200)
    if rng.random() < 0.1:  # a black band over the whole width
        echoes = echoes * (
            1 - np.clip(1.3 - np.abs(depth_fraction - rng.uniform(0.1, 0.8)) / rng.uniform(0.03, 0.25), 0, 1)
        )
    if rng.random() < 0.15:  # nothing below or above a depth
        limit = rng.uniform(0.2, 0.9)
        echoes = echoes * np.clip(
            ((limit - depth_fraction) if rng.random() < 0.6 else (depth_fraction - limit * 0.7)) * 30, 0, 1
        )
    if rng.random() < 0.55:
        echoes = echoes + _near_field(rng, shape, depth_fraction)
    if rng.random() < 0.12:  # reverberation
        period = rng.uniform(0.02, 0.12)
        rings = np.cos(2 * np.pi * depth_fraction / period) > 0.7
        echoes = echoes + rng.uniform(10, 90) * np.exp(-depth_fraction / rng.uniform(0.05, 0.4)) * rings
    return echoes


def _near_field(rng: np.random.Generator, shape: tuple[int, ...], depth_fraction: FloatArray) -> FloatArray:
    """Draw the bright echoes at the face of the probe."""
    width = rng.uniform(0.004, 0.05)
    # The lens of the probe may be seen as a dim layer above its bright face.
    start = rng.uniform(0.01, 0.06) if rng.random() < 0.2 else 0.0
    rings = np.exp(-(((depth_fraction - start) / width) ** 2))
    if rng.random() < 0.5:
        rings = rings * (0.5 + 0.5 * np.cos(2 * np.pi * depth_fraction / (width * rng.uniform(0.3, 1))))
    field = np.clip(1 + smooth_field(rng, (shape[0], shape[1]), (2, rng.integers(2, 12)), 0.3), 0, 2)
    return 255 * rng.uniform(0.1, 0.9) * rings * field


def _water_bath(
    rng: np.random.Generator, echoes: FloatArray, depth_fraction: FloatArray, beam_fraction: FloatArray
) -> FloatArray:
    """Keep only a few targets, wires and walls of a texture, and the near field."""
    targets = np.zeros(echoes.shape, np.float32)
    for _ in range(rng.integers(0, 14)):
        rows, columns = (
            (depth_fraction - rng.random()) / rng.uniform(0.004, 0.02),
            (beam_fraction - rng.random()) / rng.uniform(0.005, 0.04),
        )
        targets = np.maximum(targets, rng.uniform(0.4, 1) * np.exp(-(rows**2) - columns**2))
    if rng.random() < 0.25:  # the bottom of the bath
        targets = np.maximum(
            targets, rng.uniform(0.2, 1) * np.exp(-(((depth_fraction - rng.uniform(0.8, 1)) / 0.02) ** 2))
        )
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        line = (depth_fraction - rng.random() - (beam_fraction - 0.5) * rng.uniform(-0.4, 0.4)) / rng.uniform(
            0.003, 0.02
        )
        part = np.clip(3 - np.abs(beam_fraction - rng.random()) / rng.uniform(0.02, 0.25), 0, 1)
        targets = np.maximum(targets, rng.uniform(0.3, 1) * np.exp(-(line**2)) * part)
    result = echoes * targets * rng.uniform(1, 3)
    if rng.random() < 0.4:
        result = result + echoes * rng.uniform(0.02, 0.15)
    if rng.random() < 0.75:
        result = result + _near_field(rng, echoes.shape, depth_fraction)
    return np.maximum(result - rng.uniform(0, 30), 0) if rng.random() < 0.4 else result


def _speckle(rng: np.random.Generator) -> FloatArray:
    """Simulate fully developed speckle in dB, whose amplitude has a Rayleigh distribution."""
    sigmas = (rng.uniform(0.5, 1.6), rng.uniform(0.8, 4))
    shape = (SIMULATED_SIDE, SIMULATED_SIDE)
    parts = [ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigmas, mode="wrap") for _ in range(2)]
    power = parts[0] ** 2 + parts[1] ** 2
    return 10 * np.log10(power / power.mean() + 1e-4).astype(np.float32)


def _cut(rng: np.random.Generator, texture: FloatArray, depth: int, lateral: int) -> FloatArray:
    """Cut a part of a texture at a random position and scale, mirrored where the texture ends."""
    zoom = np.exp(rng.uniform(np.log(0.6), np.log(2.6)))
    zooms = (zoom, zoom * (rng.uniform(0.5, 2) if rng.random() < 0.25 else 1))
    positions = []
    for size, length, factor in zip((depth, lateral), texture.shape, zooms, strict=True):
        index = np.arange(size, dtype=np.float32) / np.float32(factor) + rng.integers(0, length)
        positions.append(1 - np.abs(1 - (index / length) % 2))
    if rng.random() < 0.5:
        positions[1] = 1 - positions[1]
    grid = np.broadcast_arrays(positions[0][:, None], positions[1][None])
    return resample(texture, *(axis.astype(np.float32) for axis in grid))


def _real_textures(folder: Path, exclude: str | None) -> list[FloatArray]:
    """Read the central parts of the images of a folder."""
    textures = []
    for path in image_files(folder, with_subfolders=True):
        if exclude and re.search(exclude, path.name):
            continue
        image = read_image(path).array
        for index in (
            np.linspace(0, image.shape[2] - 1, min(8, image.shape[2])).astype(int) if image.ndim == 3 else (0,)
        ):
            frame = image[:, :, index] if image.ndim == 3 else image
            rows, columns = (slice(int(0.28 * n), int(0.68 * n)) for n in frame.shape)
            part = np.ascontiguousarray(frame[rows, columns], dtype=np.float32)
            if min(part.shape) >= 24 and np.ptp(part) > 0:
                part = part * (255 / part.max()) if part.max() > 255 or part.max() <= 1 else part
                if part.std() > 3:
                    textures.append(part)
    if not textures:
        raise InputError(f"{folder} contains no image with tissue; expected a folder of ultrasound images.")
    return textures
