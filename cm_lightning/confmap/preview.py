"""Pictures and animations to check maps: frame, insonified region with source and sink, and map."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from cm_lightning.confmap.recording import Recording
from cm_lightning.drawing.figures import figure_pixels
from cm_lightning.drawing.panels import CONFIDENCE, Panel, draw_panels
from cm_lightning.writing import replaced

# Frames of an animation, of which longer sequences show a part.
MAX_FRAMES = 20
MILLISECONDS_PER_FRAME = 200
REGION_PARTS = ("domain", "source", "sink")


def preview_frames(count: int) -> NDArray[np.int64]:
    """Return the frames of a sequence that its preview shows.

    Args:
        count: Number of frames.

    Returns:
        Indices in ascending order.
    """
    return np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(np.int64))


def draw_preview(recording: Recording, frame: int, confidence: NDArray[Any]) -> Figure:
    """Draw a frame, the same frame with the insonified region, source and sink, and its map.

    Args:
        recording: The recording.
        frame: Index of the frame.
        confidence: Map of the frame, ``(depth, lateral)``.

    Returns:
        The figure.
    """
    image = np.asarray(recording.frames[frame], np.float64)
    lowest, highest = image.min(), image.max()
    image = (image - lowest) / (highest - lowest if highest > lowest else 1.0)
    masks = recording.geometry.masks(recording.frames[frame])
    region = masks.domain.astype(np.int64)
    region[_widen(masks.source) & masks.domain] = 2
    region[_widen(masks.sink) & masks.domain] = 3
    spacing, unit = recording.spacing or (1.0, 1.0), "px" if recording.spacing is None else "mm"
    count = len(recording.frames)
    name = recording.file.name if count == 1 else f"{recording.file.name}, frame {frame + 1} of {count}"
    geometry = recording.geometry
    kind = geometry.kind if geometry.shape is None else geometry.shape.kind
    panels = [
        Panel(name, image, spacing, unit),
        Panel(f"{kind}, score {geometry.score:.2f}, probe: {recording.up}", image, spacing, unit, region),
        Panel("confidence map", confidence, spacing, unit, scale=CONFIDENCE),
    ]
    return draw_panels([panels], REGION_PARTS)


def save_preview(path: Path, recording: Recording, frames: NDArray[np.int64], maps: NDArray[Any]) -> None:
    """Write a picture of one frame, or an animation of several frames.

    Args:
        path: PNG file for one frame, GIF file for several ones.
        recording: The recording.
        frames: Indices of the frames.
        maps: Their maps, ``(frames, depth, lateral)``.
    """
    pictures = [
        Image.fromarray(figure_pixels(draw_preview(recording, frame, confidence)))
        for frame, confidence in zip(frames.tolist(), maps, strict=True)
    ]
    animation: dict[str, Any] = {
        "save_all": True,
        "append_images": pictures[1:],
        "duration": MILLISECONDS_PER_FRAME,
        "loop": 0,
    }
    with replaced(path) as partial:
        pictures[0].save(partial, **(animation if len(pictures) > 1 else {}))


def _widen(line: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Widen a line by two rows to both sides, so that its outline is visible."""
    wide = line.copy()
    for shift in (1, 2):
        wide[shift:] |= line[:-shift]
        wide[:-shift] |= line[shift:]
    return wide
