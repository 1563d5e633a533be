"""Pictures of image, confidence map, label and prediction, with depth downwards and axes in mm."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

Frame = NDArray[Any]

PANEL_WIDTH = 2.6
"""Width of a panel in inches. All lengths of :func:`draw_panels` are in inches."""

PANEL_GAP = 0.2
"""Distance of neighbouring panels in inches."""

TITLE_CHARACTERS = 38
"""Characters of a panel's title that fit above a panel; longer titles have several lines."""


@dataclass(frozen=True)
class Scale:
    """Colour scale of a quantity, which is the same in all pictures.

    Attributes:
        name: Label of the colour bar.
        maximum: Upper limit; the lower limit is 0.
        colour_map: Name of a Matplotlib colour map.
    """

    name: str
    maximum: float = 1.0
    colour_map: str = "viridis"


GREY = Scale("", colour_map="gray")
CONFIDENCE = Scale("confidence")
ERRORS = Scale("errors", colour_map="inferno")


@dataclass(frozen=True)
class Panel:
    """One panel: an image or a map with outlines of classes.

    Attributes:
        title: Title of the panel.
        frame: Image or map, ``(depth, lateral)``.
        spacing: Pixel size in depth and lateral direction.
        unit: Unit of the spacing, "mm" or "px".
        label: Class indices whose outlines are drawn, ``(depth, lateral)``, or None.
        scale: Colour scale.
    """

    title: str
    frame: Frame
    spacing: tuple[float, float]
    unit: str
    label: Frame | None = None
    scale: Scale = GREY


def class_colour(index: int) -> tuple[float, float, float, float]:
    """Return the colour of a class.

    Args:
        index: Class index, 1 or larger.

    Returns:
        Red, green, blue and alpha from 0 to 1.
    """
    red, green, blue, alpha = colormaps["Set1"]((index - 1) % 9)
    return red, green, blue, alpha


def case_panels(
    case: str,
    image: Frame,
    confidence: Frame | None,
    label: Frame,
    prediction: Frame,
    spacing: tuple[float, float],
    unit: str,
    title: str = "prediction",
) -> list[Panel]:
    """Create the panels of a case: image, confidence map (if there is one), label and prediction.

    Args:
        case: Id of the case.
        image: Image, ``(depth, lateral)``.
        confidence: Confidence map from 0 to 1, ``(depth, lateral)``, or None.
        label: Class indices of the label, ``(depth, lateral)``.
        prediction: Class indices of the prediction, ``(depth, lateral)``.
        spacing: Pixel size in depth and lateral direction.
        unit: Unit of the spacing, "mm" or "px".
        title: Title of the prediction's panel.

    Returns:
        The panels from left to right.
    """
    panels = [Panel(f"{case}: image", image, spacing, unit)]
    if confidence is not None:
        panels.append(Panel("confidence map", confidence, spacing, unit, scale=CONFIDENCE))
    panels.append(Panel("label", image, spacing, unit, label))
    panels.append(Panel(title, image, spacing, unit, prediction))
    return panels


def draw_panels(rows: Sequence[Sequence[Panel]], class_names: Sequence[str], title: str = "") -> Figure:
    """Draw a grid of panels with a legend of the classes and a colour bar for every scale.

    Args:
        rows: Rows of panels, all of the same length.
        class_names: Names of the classes 1, 2, ...
        title: Title of the figure.

    Returns:
        The figure.
    """
    # Very flat and very tall images leave a part of their panel empty.
    heights = [PANEL_WIDTH * min(1.6, max(0.5, _extent(row[0])[1] / _extent(row[0])[0])) for row in rows]
    titles = [[fill(panel.title, TITLE_CHARACTERS) for panel in row] for row in rows]
    lines = [max(text.count("\n") + 1 for text in row) for row in titles]
    scales = list(dict.fromkeys(panel.scale for row in rows for panel in row if panel.scale != GREY))
    left, bottom, top = 0.6, 0.75, 0.4 if title else 0.05
    columns = len(rows[0])
    width = left + (PANEL_WIDTH + PANEL_GAP) * columns + 0.85 * len(scales)
    grid_height = sum(heights) + 0.15 * sum(lines) + 0.3 * len(rows)
    height = bottom + grid_height + top
    figure = Figure(figsize=(width, height), dpi=110)

    def add_axes(x: float, y: float, axes_width: float, axes_height: float) -> Axes:
        return figure.add_axes((x / width, y / height, axes_width / width, axes_height / height))

    images: dict[Scale, Any] = {}
    y = bottom + grid_height
    for row, row_titles, row_height, row_lines in zip(rows, titles, heights, lines, strict=True):
        y -= 0.15 * row_lines + 0.1 + row_height
        for column, (panel, panel_title) in enumerate(zip(row, row_titles, strict=True)):
            axes = add_axes(left + (PANEL_WIDTH + PANEL_GAP) * column, y, PANEL_WIDTH, row_height)
            images[panel.scale] = _draw_panel(axes, panel, len(class_names))
            axes.set_title(panel_title, fontsize=9)
            if column == 0:
                axes.set_ylabel(f"depth [{panel.unit}]")
            else:
                # All panels of a row show the same case and have the same axis.
                axes.tick_params(labelleft=False)
        y -= 0.2
    for axes, panel in zip(figure.axes[-columns:], rows[-1], strict=True):
        axes.set_xlabel(f"lateral [{panel.unit}]")
    for index, scale in enumerate(scales):
        x = left + (PANEL_WIDTH + PANEL_GAP) * columns + 0.85 * index
        bar = add_axes(x, bottom + 0.2 * grid_height, 0.12, 0.6 * grid_height)
        figure.colorbar(images[scale], cax=bar, label=scale.name)
    handles = [Line2D([], [], color=class_colour(i), label=name) for i, name in enumerate(class_names, start=1)]
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    if title:
        figure.suptitle(title, y=1 - 0.08 / height, va="top")
    return figure


def _extent(panel: Panel) -> tuple[float, float]:
    """Return the size in lateral and depth direction."""
    depth, lateral = panel.frame.shape
    return lateral * panel.spacing[1], depth * panel.spacing[0]


def _draw_panel(axes: Axes, panel: Panel, classes: int) -> Any:
    width, height = _extent(panel)
    corners = (0.0, width, height, 0.0)
    scale = panel.scale
    image = axes.imshow(
        panel.frame, cmap=scale.colour_map, vmin=0, vmax=scale.maximum, extent=corners, interpolation="nearest"
    )
    if panel.label is not None:
        for index in range(1, classes + 1):
            mask = (panel.label == index).astype(float)
            if mask.any() and not mask.all():
                axes.contour(mask, [0.5], colors=[class_colour(index)], linewidths=1.4, extent=corners, origin="upper")
    axes.tick_params(labelsize=7)
    return image
