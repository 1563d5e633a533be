"""Figures as files and as pixel arrays."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cm_lightning.writing import replaced


def save_figure(figure: Figure, path: Path, dpi: float | None = None) -> None:
    """Save a figure, and create its folder if necessary.

    Args:
        figure: The figure.
        path: Image file, such as a PNG file.
        dpi: Resolution in dots per inch; that of the figure by default.
    """
    with replaced(path) as partial:
        figure.savefig(partial, dpi=dpi or "figure")


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure.

    Args:
        figure: The figure.

    Returns:
        RGB image, uint8, ``(height, width, 3)``.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
