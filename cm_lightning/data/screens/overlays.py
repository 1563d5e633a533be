"""Overlays that scanners and viewers draw around and over insonified regions: text, rulers, panels and marks."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cm_lightning.data.screens.pictures import Box

Draw = ImageDraw.ImageDraw

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%./:-+() "
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmtt10", "cmss10")


@dataclass(frozen=True)
class Canvas:
    """Screen that is being drawn.

    Attributes:
        image: Grey image of Pillow.
        draw: Pillow's drawing interface of the image.
        rng: Random number generator.
        box: Extent of the insonified region.
    """

    image: Image.Image
    draw: Draw
    rng: np.random.Generator
    box: Box

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.image.width

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.image.height

    def level(self, low: int = 80, high: int = 256) -> int:
        """Draw a grey level."""
        return int(self.rng.integers(low, high))


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def draw_word(canvas: Canvas, column: float, row: float, level: int, scale: float = 1.0) -> None:
    """Draw a random word or number.

    Args:
        canvas: The screen.
        column: Left side of the word.
        row: Top of the word.
        level: Grey level.
        scale: Size relative to the usual one.
    """
    rng = canvas.rng
    count = rng.choice([1, 2, 3, 4, 5, 6, 8, 10, 14, 20])
    word = "".join(CHARACTERS[index] for index in rng.integers(0, len(CHARACTERS), count))
    size = max(6, int(scale * max(canvas.width, canvas.height) * np.exp(rng.uniform(np.log(0.011), np.log(0.034)))))
    canvas.draw.fontmode = "L" if rng.random() < 0.7 else "1"
    canvas.draw.text((column, row), word, fill=level, font=_font(FONTS[rng.integers(len(FONTS))], size))


def draw_panels(canvas: Canvas) -> None:
    """Draw the panels of a viewer, with buttons and text, in the space beside the region."""
    rng, box = canvas.rng, canvas.box
    for _ in range(rng.integers(1, 4)):
        panel: tuple[float, float, float, float]
        level = int(rng.choice([8, 20, 30, 45, 66, 100, 128, 180, 230, 250, 255]))
        match rng.integers(4):
            case 0:
                panel = (0.0, 0.0, box.left * rng.uniform(0.3, 1), canvas.height)
            case 1:
                panel = (box.right + (canvas.width - box.right) * rng.uniform(0, 0.7), 0.0, canvas.width, canvas.height)
            case 2:
                panel = (0.0, 0.0, canvas.width, box.top * rng.uniform(0.3, 1))
            case _:
                top = box.bottom + (canvas.height - box.bottom) * rng.uniform(0, 0.7)
                panel = (0.0, top, canvas.width, canvas.height)
        left, top, right, bottom = (int(side) for side in panel)
        if right - left < 5 or bottom - top < 5:
            continue
        canvas.draw.rectangle((left, top, right - 1, bottom - 1), fill=level)
        for _ in range(rng.integers(0, 16)):
            column, row = int(rng.integers(left, right)), int(rng.integers(top, bottom))
            corner = (
                min(right - 1, column + int(rng.integers(10, 120))),
                min(bottom - 1, row + int(rng.integers(6, 40))),
            )
            if rng.random() < 0.5:
                fill = int(np.clip(level + rng.normal(0, 40), 0, 255))
                shape = {"fill": fill} if rng.random() < 0.6 else {"outline": fill}
                canvas.draw.rectangle((column, row, *corner), **shape)
            else:
                draw_word(canvas, column, row, 255 if level < 128 else 0, 0.8)


def draw_texts(canvas: Canvas) -> None:
    """Draw single words, and sometimes columns of words."""
    rng = canvas.rng
    for _ in range(rng.choice([0, 2, 4, 8, 14, 22])):
        draw_word(canvas, float(rng.uniform(0, canvas.width)), float(rng.uniform(-4, canvas.height)), canvas.level())
    if rng.random() < 0.4:
        column, row, step = (
            rng.uniform(0, 0.85) * canvas.width,
            rng.uniform(0, 0.5) * canvas.height,
            rng.uniform(10, 22),
        )
        for index in range(rng.integers(3, 14)):
            draw_word(canvas, column, row + index * step, canvas.level(), 0.8)


def draw_ruler(canvas: Canvas) -> None:
    """Draw the ticks of a depth or width ruler, close to the region or away from it."""
    rng, box = canvas.rng, canvas.box
    level, count = canvas.level(), rng.integers(5, 45)
    distance = rng.uniform(-2, 14) if rng.random() < 0.7 else rng.uniform(0, 0.1) * canvas.width
    short, long, every = rng.integers(1, 8), rng.integers(3, 14), rng.choice([1, 5, 10])
    vertical = rng.random() < 0.75
    start, stop = (box.top, box.bottom) if vertical else (box.left, box.right)
    near, far = (box.left, box.right) if vertical else (box.top, box.bottom)
    position = far + distance if rng.random() < 0.6 else near - distance - short
    for index, along in enumerate(np.linspace(start, stop, count)):
        end = position + (long if index % every == 0 else short)
        line = (position, along, end, along) if vertical else (along, position, along, end)
        canvas.draw.line(line, fill=level)
        if index % every == 0 and rng.random() < 0.1:
            draw_word(canvas, line[2] + 2, line[3] - 4, level, 0.6)
    if rng.random() < 0.35:
        margin = rng.choice([0, 0, rng.uniform(0, 0.3) * canvas.width])
        line = (position, start - margin, position, stop + margin) if vertical else (
            start - margin, position, stop + margin, position)  # fmt: skip
        canvas.draw.line(line, fill=level, width=int(rng.integers(1, 4)))


def draw_grey_bar(canvas: Canvas) -> None:
    """Draw the bar of grey levels."""
    rng, box = canvas.rng, canvas.box
    height, width = int(canvas.height * rng.uniform(0.1, 0.5)), int(rng.integers(5, 24))
    column = rng.choice(
        [rng.uniform(0, max(1, box.left - width)), rng.uniform(box.right, max(box.right + 1, canvas.width))]
    )
    levels = np.linspace(255, 0, max(2, height))[:: 1 if rng.random() < 0.8 else -1]
    bar = np.repeat(levels[:, None], width, axis=1).astype(np.uint8)
    corner = (int(min(max(0, column), canvas.width - width)), int(rng.uniform(0, max(1, canvas.height - height))))
    canvas.image.paste(Image.fromarray(bar), corner)
    if rng.random() < 0.4:
        canvas.draw.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + width, corner[1] + height), outline=180)


def draw_curve(canvas: Canvas) -> None:
    """Draw an ECG, or the curve of the time gain compensation."""
    rng = canvas.rng
    if rng.random() < 0.6:
        columns = np.arange(rng.uniform(0, 0.3) * canvas.width, rng.uniform(0.6, 1) * canvas.width)
        phase = (columns / rng.uniform(20, 90)) % 1
        wave = 0.06 * np.exp(-(((phase - 0.4) / 0.03) ** 2)) - 0.01 * np.sin(phase * 9)
        rows = canvas.height * (rng.uniform(0.6, 0.97) - wave)
    else:
        rows = np.linspace(canvas.box.top, canvas.box.bottom, 9)
        columns = rng.uniform(0, canvas.width) + rng.normal(0, 8, 9)
    canvas.draw.line(list(zip(columns, rows, strict=True)), fill=canvas.level(120))


def draw_icons(canvas: Canvas) -> None:
    """Draw symbols, boxes in which text was removed, and lines of windows."""
    rng = canvas.rng
    size = max(canvas.width, canvas.height)
    for _ in range(rng.choice([0, 0, 1, 2, 5])):
        column, row, length = (
            rng.uniform(0, canvas.width),
            rng.uniform(0, canvas.height),
            size * rng.uniform(0.008, 0.03),
        )
        fill = {"fill": canvas.level(60)} if rng.random() < 0.5 else {"outline": canvas.level(60)}
        match rng.integers(3):
            case 0:
                canvas.draw.ellipse((column - length, row - length, column + length, row + length), **fill)
            case 1:
                canvas.draw.rectangle((column, row, column + 2 * length, row + length), **fill)
            case _:
                triangle = [(column, row), (column + length, row + length), (column - length, row + length)]
                canvas.draw.polygon(triangle, **fill)
    if rng.random() < 0.12:
        for _ in range(rng.integers(1, 4)):
            column, row = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
            corner = (column + rng.uniform(0.03, 0.2) * canvas.width, row + rng.uniform(0.01, 0.05) * canvas.height)
            canvas.draw.rectangle((column, row, *corner), fill=int(rng.choice([0, 0, 128, 255])))
    if rng.random() < 0.06:
        for _ in range(rng.integers(1, 4)):
            if rng.random() < 0.5:
                row = rng.uniform(0, canvas.height)
                canvas.draw.line((0, row, canvas.width, row), fill=canvas.level(30))
            else:
                column = rng.uniform(0, canvas.width)
                canvas.draw.line((column, 0, column, canvas.height), fill=canvas.level(30))


def draw_marks(canvas: Canvas) -> None:
    """Draw calipers, distances, boxes and text over the region."""
    rng, box = canvas.rng, canvas.box
    for _ in range(rng.integers(1, 6)):
        column, row = rng.uniform(box.left, box.right), rng.uniform(box.top, box.bottom)
        other = (rng.uniform(box.left, box.right), rng.uniform(box.top, box.bottom))
        level, size = canvas.level(150), rng.integers(3, 10)
        match rng.integers(6):
            case 0 | 1:
                canvas.draw.line((column - size, row, column + size, row), fill=level)
                canvas.draw.line((column, row - size, column, row + size), fill=level)
            case 2:
                for fraction in np.linspace(0, 1, rng.integers(8, 50)):
                    dot = (column + fraction * (other[0] - column), row + fraction * (other[1] - row))
                    canvas.draw.ellipse((dot[0] - 1, dot[1] - 1, dot[0] + 1, dot[1] + 1), fill=level)
            case 3:
                corner = (column + rng.uniform(0.1, 0.4) * box.width, row + rng.uniform(0.1, 0.4) * box.height)
                canvas.draw.rectangle((column, row, *corner), outline=level)
            case 4:
                draw_word(canvas, column, row, level)
            case _:
                canvas.draw.line((column, row, *other), fill=level)


def draw_corner_marks(canvas: Canvas) -> None:
    """Draw the orientation mark of the probe, or handles at the corners of the region."""
    rng, box = canvas.rng, canvas.box
    for row in (box.top, box.bottom):
        for column in (box.left, box.right):
            if rng.random() < 0.4:
                size = rng.integers(3, 12)
                bounds = (column - size, row - size, column + size, row + size)
                style = {"fill": canvas.level(60)} if rng.random() < 0.6 else {"outline": canvas.level(60)}
                canvas.draw.ellipse(bounds, **style)
