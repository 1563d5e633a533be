"""Synthetic screens: an insonified region among the overlays of scanners and viewers."""

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from cm_lightning.data.screens import overlays
from cm_lightning.data.screens.pictures import Box, Region, draw_region
from cm_lightning.data.screens.tissue import TissueTextures, draw_echoes, resample, resize, smooth_field

FloatArray = NDArray[np.float32]

BACKGROUNDS = (0, 0, 0, 0, 0, 0, 1, 2, 5, 10, 16, 25, 45, 64, 90, 128, 200, 250, 255)
PROPORTIONS = (4 / 3, 4 / 3, 4 / 3, 1.25, 16 / 9, 16 / 9, 1.0, 0.85, 0.6, 1.5, 1.1)


@dataclass(frozen=True)
class Screen:
    """Synthetic screen with its insonified region.

    Attributes:
        image: Grey levels, uint8, ``(rows, columns)``. For a sequence, this is the maximum of its frames.
        change: Standard deviation of the grey levels over a sequence, ``(rows, columns)``; None for a single frame.
        region: The insonified region.
    """

    image: NDArray[np.uint8]
    change: FloatArray | None
    region: Region


def draw_screen(rng: np.random.Generator, textures: TissueTextures) -> Screen:
    """Draw a random screen.

    Args:
        rng: Random number generator.
        textures: Textures of the tissue.

    Returns:
        The screen.
    """
    while True:
        screen = _try_screen(rng, textures)
        if screen is not None:
            return screen


def _try_screen(rng: np.random.Generator, textures: TissueTextures) -> Screen | None:
    """Draw a screen; None if the region became too small to be recognised."""
    shape = _draw_shape(rng)
    cropped = rng.random() < 0.14
    box = _draw_box(rng, shape, cropped)
    whole = cropped and rng.random() < 0.4
    region = draw_region(rng, shape, box, "linear" if whole else None, fill=whole)
    if np.count_nonzero(region.inside) < 0.03 * region.inside.size:
        return None
    rows, columns = (np.flatnonzero(region.inside.any(axis=axis)) for axis in (1, 0))
    extent = Box(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
    background, level = _draw_background(rng, shape)
    image = Image.fromarray(background)
    canvas = overlays.Canvas(image, ImageDraw.Draw(image), rng, extent)
    if not cropped:
        has_panels = rng.random() < 0.34
        if has_panels:
            overlays.draw_panels(canvas)
        if rng.random() < (0.4 if has_panels else 0.1):
            _draw_window(canvas)
        if rng.random() < 0.45:
            _draw_second_picture(canvas, region, textures)
    is_sequence = rng.random() < 0.35
    echoes, change = _draw_picture(rng, region, textures, is_sequence)
    if level > 0 and level < 40 and rng.random() < 0.5:
        echoes = np.maximum(echoes, level)
    pixels = np.array(image)
    pixels[region.inside] = np.round(echoes[region.inside])
    drawn = _draw_overlays(pixels, region, canvas)
    return _degrade(rng, drawn, change, region)


def _draw_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Draw the number of rows and columns of a screen."""
    longest = np.exp(
        rng.uniform(np.log(80), np.log(320)) if rng.random() < 0.17 else rng.uniform(np.log(320), np.log(800))
    )
    proportion = float(rng.choice(PROPORTIONS))
    return (int(longest / proportion), int(longest)) if proportion >= 1 else (int(longest), int(longest * proportion))


def _draw_box(rng: np.random.Generator, shape: tuple[int, int], cropped: bool) -> Box:
    """Draw the extent of the region."""
    rows, columns = shape
    if cropped:
        margin = 0.0 if rng.random() < 0.6 else 0.03
        sides = rng.uniform(0, margin, 4)
        return Box(rows * sides[0], rows * (1 - sides[1]), columns * sides[2], columns * (1 - sides[3]))
    margin = 0.42 if rng.random() < 0.25 else 0.22
    sides = rng.uniform(0, margin, 4)
    if rng.random() < 0.25:
        sides[0] = 0 if rng.random() < 0.4 else rng.uniform(0, 0.04)
    if rng.random() < 0.2:
        sides[1] = 0 if rng.random() < 0.4 else rng.uniform(0, 0.04)
    if rng.random() < 0.4:
        sides[2] = sides[3] = min(sides[2], sides[3])
    return Box(rows * sides[0], rows * (1 - sides[1]), columns * sides[2], columns * (1 - sides[3]))


def _draw_background(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
    """Draw the background and return its level."""
    level = float(rng.choice(BACKGROUNDS)) if rng.random() < 0.9 else float(rng.uniform(0, 255))
    background = np.full(shape, level, np.float32)
    if rng.random() < 0.08:
        background += np.linspace(0, rng.uniform(5, 80), shape[0], dtype=np.float32)[:, None]
    if rng.random() < 0.05:
        background += np.linspace(0, rng.uniform(5, 80), shape[1], dtype=np.float32)[None]
    if rng.random() < 0.04:
        background += smooth_field(rng, shape, (3, 3), 6)
    return np.clip(np.round(background), 0, 255).astype(np.uint8), level


def _draw_window(canvas: overlays.Canvas) -> None:
    """Draw a dark window around the region."""
    rng, box = canvas.rng, canvas.box
    top, bottom = canvas.height * rng.uniform(0, 0.08, 2)
    left, right = canvas.width * rng.uniform(0, 0.2, 2)
    corners = (box.left - left, box.top - top, box.right + right, box.bottom + bottom)
    canvas.draw.rectangle(corners, fill=int(rng.choice([0, 0, 5, 15])))


def _draw_second_picture(canvas: overlays.Canvas, region: Region, textures: TissueTextures) -> None:
    """Draw a smaller picture, an M-mode, a Doppler spectrum or thumbnails beside the region."""
    rng, box = canvas.rng, canvas.box
    spaces = [
        Box(0, box.top, 0, canvas.width),
        Box(box.bottom, canvas.height, 0, canvas.width),
        Box(box.top, box.bottom, 0, box.left),
        Box(box.top, box.bottom, box.right, canvas.width),
    ]
    largest = int(np.argmax([space.width * space.height for space in spaces]))
    space = spaces[largest if rng.random() < 0.6 else rng.integers(4)]
    if min(space.width, space.height) < 25:
        return
    margin = rng.uniform(0, 0.12)
    top, left = space.top + margin * space.height, space.left + margin * space.width
    height, width = (
        space.height * (1 - margin) * rng.uniform(0.85, 1),
        space.width * (1 - margin) * rng.uniform(0.85, 1),
    )
    pixels = np.array(canvas.image)
    kind = rng.integers(4)
    if kind == 0:
        scale = min(1.0, np.sqrt(0.6 * np.count_nonzero(region.inside) / (height * width)))
        other = draw_region(rng, region.inside.shape, Box(top, top + height * scale, left, left + width * scale))
        echoes = _draw_picture(rng, other, textures, False)[0]
        inside = other.inside & ~region.inside
        pixels[inside] = echoes[inside]
    else:
        rows, columns = slice(int(top), int(top + height)), slice(int(left), int(left + width))
        target = pixels[rows, columns]
        if min(target.shape) < 15:
            return
        match kind:
            case 1:  # M-mode: the same beam many times
                echoes = draw_echoes(
                    rng, textures, target.shape[0], max(24, int(target.shape[1] * rng.uniform(0.04, 0.2)))
                )
                target[:] = resize(echoes, target.shape)
            case 2:
                target[:] = _doppler_spectrum(rng, target.shape)
            case _:
                _draw_thumbnails(rng, target, region, textures)
    canvas.image.paste(Image.fromarray(pixels))


def _doppler_spectrum(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw the spectrum of pulsatile flow."""
    time = np.linspace(0, 1, shape[1], dtype=np.float32)
    envelope = np.abs(np.sin(time * np.pi * rng.uniform(2, 9))) ** rng.uniform(0.5, 3) * rng.uniform(0.3, 0.9)
    frequency = np.linspace(1, 0, shape[0], dtype=np.float32)[:, None]
    power = (frequency < envelope) * (0.3 + 0.7 * frequency / (envelope + 0.05)) * 255 * rng.uniform(0.3, 0.9)
    return np.clip(ndimage.gaussian_filter(power * np.sqrt(rng.exponential(1, shape)), 0.8), 0, 255)


def _draw_thumbnails(
    rng: np.random.Generator, target: NDArray[np.uint8], region: Region, textures: TissueTextures
) -> None:
    """Draw small pictures in a row or column."""
    horizontal = target.shape[1] > target.shape[0]
    count = int(rng.integers(1, 6))
    side = min(target.shape[0] // (1 if horizontal else count), target.shape[1] // (count if horizontal else 1)) - 4
    if side < 12:
        return
    for index in range(count):
        shape = (side, int(side * rng.uniform(0.8, 1)))
        row, column = (2, 2 + index * (side + 4)) if horizontal else (2 + index * (side + 4), 2)
        thumbnail = draw_region(rng, shape, Box(0, shape[0], 0, shape[1]), side="top")
        echoes = _draw_picture(rng, thumbnail, textures, False)[0]
        target[row : row + shape[0], column : column + shape[1]] = np.where(thumbnail.inside, echoes, 0)


def _draw_picture(
    rng: np.random.Generator, region: Region, textures: TissueTextures, is_sequence: bool
) -> tuple[FloatArray, FloatArray | None]:
    """Draw the echoes of a region on the screen, and their change over a sequence."""
    scale = rng.uniform(0.5, 1) if rng.random() < 0.5 else 1.0
    depth, lateral = (max(24, int(samples * scale)) for samples in region.samples)
    bath = 0.4 if region.family == "wide" else 0.22
    echoes = draw_echoes(rng, textures, depth, lateral, bath)
    change = None
    if is_sequence:
        shift = rng.normal(0, 3, 2).astype(int)
        second_frame = np.roll(echoes, tuple(shift), (0, 1)) * np.exp(smooth_field(rng, (depth, lateral), (4, 4), 0.15))
        if rng.random() < 0.2:
            second_frame = echoes * (1 + rng.uniform(0, 0.05) * rng.standard_normal(echoes.shape, np.float32))
        change = np.abs(second_frame - echoes) * np.float32(0.7)
        echoes = np.clip(np.maximum(echoes, second_frame), 0, 255).astype(np.float32)
    picture = resample(echoes, region.depth, region.beam)
    if rng.random() < 0.3:
        picture = ndimage.gaussian_filter(picture, rng.uniform(0.4, 1.2) if rng.random() < 0.8 else rng.uniform(1.2, 3))
    if change is not None:
        change = np.where(region.inside, resample(change.astype(np.float32), region.depth, region.beam), 0)
    return picture, change


def _draw_overlays(pixels: NDArray[np.uint8], region: Region, background: overlays.Canvas) -> NDArray[np.float32]:
    """Draw text, rulers and other overlays, most of which leave the region free."""
    rng = background.rng
    image = Image.fromarray(pixels)
    canvas = overlays.Canvas(image, ImageDraw.Draw(image), rng, background.box)
    overlays.draw_texts(canvas)
    for probability, draw in (
        (0.65, overlays.draw_ruler),
        (0.25, overlays.draw_ruler),
        (0.5, overlays.draw_grey_bar),
        (0.25, overlays.draw_curve),
        (1.0, overlays.draw_icons),
    ):
        if rng.random() < probability:
            draw(canvas)
    if rng.random() < 0.75:
        drawn = np.array(image)
        drawn[region.inside] = pixels[region.inside]
        image.paste(Image.fromarray(drawn))
    if rng.random() < 0.08:  # a frame around the region
        inside = region.inside
        outline = ndimage.binary_dilation(inside) & ~inside
        drawn = np.array(image)
        drawn[outline] = canvas.level(40)
        image.paste(Image.fromarray(drawn))
    if rng.random() < 0.4:
        overlays.draw_marks(canvas)
    if rng.random() < 0.2:
        overlays.draw_corner_marks(canvas)
    return np.array(image, dtype=np.float32)


def _degrade(rng: np.random.Generator, image: FloatArray, change: FloatArray | None, region: Region) -> Screen:
    """Change contrast and size, add noise, and compress the image."""
    if rng.random() < 0.14:
        lowest = rng.uniform(0, 60)
        image = lowest + image * (rng.uniform(0.4, 1) * (255 - lowest) / 255)
    if rng.random() < 0.04:
        image = 255 - image
    if rng.random() < 0.12:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.0))
    if rng.random() < 0.15:
        image = image + rng.normal(0, rng.uniform(0.5, 3), image.shape).astype(np.float32)
    if change is not None and rng.random() < 0.4:  # compression of a video
        change = np.abs(change + rng.normal(0, rng.uniform(0.1, 1), change.shape).astype(np.float32))
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        factor = np.exp(rng.uniform(np.log(0.6), np.log(1.35)))
        shape = (max(32, int(image.shape[0] * factor)), max(32, int(image.shape[1] * factor)))
        method = Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR
        pixels = np.asarray(Image.fromarray(pixels).resize(shape[::-1], method))
        change = None if change is None else resize(change.astype(np.float32), shape)
        nearest = resize(region.inside.astype(np.float32), shape, "nearest") > 0.5
        depth, beam = resize(region.depth, shape), resize(region.beam, shape)
        region = replace(region, inside=nearest, depth=depth, beam=beam)
    if rng.random() < 0.35:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(35, 97)))
        pixels = np.asarray(Image.open(buffer))
    return Screen(pixels, change, region)
