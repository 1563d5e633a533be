"""Figures as files and as pixels."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure into an array.

    Args:
        figure: Which.

    Returns:
        ``(height, width, 3)``.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
