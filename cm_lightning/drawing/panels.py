"""Pictures of image, confidence map, label and prediction, with depth downwards and axes in mm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray

Frame = NDArray[Any]


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
    heights = [min(1.6, _extent(row[0])[1] / _extent(row[0])[0]) for row in rows]
    columns = len(rows[0])
    width = 3.1 * columns + 0.9
    # Panels are a little lower than their width allows, because otherwise the layout lets the figure title and the
    # legend overlap them. The other lengths in inches are those of titles and axis labels.
    height = 2.6 * sum(heights) + 0.55 * len(rows) + 0.8
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.1), dpi=110)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    images: dict[Scale, Any] = {}
    for row_axes, row in zip(grid, rows, strict=True):
        for axes, panel in zip(row_axes, row, strict=True):
            images[panel.scale] = _draw_panel(axes, panel, len(class_names))
        row_axes[0].set_ylabel(f"depth [{row[0].unit}]")
        for axes in row_axes[1:]:
            # All panels of a row show the same case and have the same axis.
            axes.tick_params(labelleft=False)
    for axes, panel in zip(grid[-1], rows[-1], strict=True):
        axes.set_xlabel(f"lateral [{panel.unit}]")
    for scale, image in images.items():
        if scale != GREY:
            figure.colorbar(image, ax=grid, label=scale.name, shrink=0.6, pad=0.01)
    handles = [Line2D([], [], color=class_colour(i), label=name) for i, name in enumerate(class_names, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    if title:
        figure.suptitle(title)
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
    axes.set_title(panel.title, fontsize=9)
    axes.tick_params(labelsize=7)
    return image
