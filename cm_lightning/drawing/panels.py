"""Image, confidence map, label and prediction, drawn as a sonographer looks at them: depth downwards, in mm."""

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
    """How a quantity is coloured, in all pictures alike.

    Attributes:
        name: What it is called beside the colours.
        highest: Its largest value; the smallest is 0.
        colours: Name of a colour map.
    """

    name: str
    highest: float = 1.0
    colours: str = "viridis"


GREY = Scale("", colours="gray")
CONFIDENCE = Scale("confidence")
WRONG = Scale("wrong", colours="inferno")


@dataclass(frozen=True)
class Panel:
    """One picture: a frame in grey or a map in colour, with outlines of classes.

    Attributes:
        title: What is shown.
        frame: ``(depth, lateral)``.
        spacing: Pixel size in depth and lateral.
        unit: Of the spacing.
        label: Class indices to outline, or None.
        scale: How it is coloured.
    """

    title: str
    frame: Frame
    spacing: tuple[float, float]
    unit: str
    label: Frame | None = None
    scale: Scale = GREY


def class_colour(index: int) -> tuple[float, float, float, float]:
    """Give the colour of class 1, 2, ..."""
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
    """Lay out the panels of a case: image, confidence map where there is one, label, and prediction.

    Args:
        case: The case's id.
        image: ``(depth, lateral)``, as all others.
        confidence: Confidence map, or None.
        label: Class indices of the label.
        prediction: Class indices of the prediction.
        spacing: Pixel size in depth and lateral.
        unit: Of the spacing.
        title: Of the prediction's panel.

    Returns:
        The panels, from left to right.
    """
    panels = [Panel(f"{case}: image", image, spacing, unit)]
    if confidence is not None:
        panels.append(Panel("confidence map", confidence, spacing, unit, scale=CONFIDENCE))
    panels.append(Panel("label", image, spacing, unit, label))
    panels.append(Panel(title, image, spacing, unit, prediction))
    return panels


def draw_panels(rows: Sequence[Sequence[Panel]], class_names: Sequence[str], title: str = "") -> Figure:
    """Draw a grid of panels with one legend of classes and one bar for every scale.

    Args:
        rows: Panels, row by row, all rows of one length.
        class_names: Names of the classes 1, 2, ...
        title: Above everything.

    Returns:
        The figure.
    """
    heights = [min(1.6, _extent(row[0])[1] / _extent(row[0])[0]) for row in rows]
    columns = len(rows[0])
    width = 3.1 * columns + 0.9
    height = 3.0 * sum(heights) + 0.9
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(hspace=0.06), dpi=110)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    shown: dict[Scale, Any] = {}
    for line, row in zip(axes, rows, strict=True):
        for place, panel in zip(line, row, strict=True):
            shown[panel.scale] = _draw_panel(place, panel, len(class_names))
        line[0].set_ylabel(f"depth [{row[0].unit}]")
        for place in line[1:]:
            place.tick_params(labelleft=False)  # all panels of a row are of one case
    for place, panel in zip(axes[-1], rows[-1], strict=True):
        place.set_xlabel(f"lateral [{panel.unit}]")
    for scale, drawn in shown.items():
        if scale != GREY:
            figure.colorbar(drawn, ax=axes, label=scale.name, shrink=0.6, pad=0.01)
    handles = [Line2D([], [], color=class_colour(i), label=name) for i, name in enumerate(class_names, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _extent(panel: Panel) -> tuple[float, float]:
    """Lateral and depth size."""
    depth, lateral = panel.frame.shape
    return lateral * panel.spacing[1], depth * panel.spacing[0]


def _draw_panel(place: Axes, panel: Panel, classes: int) -> Any:
    width, height = _extent(panel)
    corners = (0.0, width, height, 0.0)
    scale = panel.scale
    drawn = place.imshow(
        panel.frame, cmap=scale.colours, vmin=0, vmax=scale.highest, extent=corners, interpolation="nearest"
    )
    if panel.label is not None:
        for index in range(1, classes + 1):
            mask = (panel.label == index).astype(float)
            if mask.any() and not mask.all():
                place.contour(mask, [0.5], colors=[class_colour(index)], linewidths=1.4, extent=corners, origin="upper")
    place.set_title(panel.title, fontsize=9)
    place.tick_params(labelsize=7)
    return drawn
