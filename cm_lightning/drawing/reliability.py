"""Reliability diagrams: observed frequency of a class as a function of its predicted probability."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cm_lightning.metrics.calibration import BINS, reliability


def reliability_plot(calibration: pd.DataFrame, columns: int = 4) -> Figure:
    """Draw reliability diagrams, in which calibrated models are on the diagonal.

    Args:
        calibration: Long table of :func:`cm_lightning.metrics.calibration.calibration_rows` with the columns ``model``
            and ``calibration``.
        columns: Number of panels per row.

    Returns:
        Figure with one panel per model, for the voxels of all classes, cases and seeds. There is one line without
        temperature scaling and, if it was measured, one with it. The area in the background is the fraction of voxels
        in each bin without temperature scaling, on a logarithmic scale from 1e-6 to 1.
    """
    points = reliability(calibration)
    models = list(dict.fromkeys(calibration["model"]))
    columns = min(columns, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.6, 3.0 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    styles = {
        "none": ("o-", "tab:blue", "no calibration"),
        "temperature": ("s--", "tab:orange", "temperature scaling"),
    }
    lines: dict[str, Line2D] = {}
    for axes, model in zip(panels, models, strict=False):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for method, (style, colour, name) in styles.items():
            if method in points.loc[model].index:
                bins = points.loc[(model, method)]
                (lines[name],) = axes.plot(
                    bins["probability"], bins["frequency"], style, color=colour, markersize=3, linewidth=1
                )
        bins = points.loc[(model, "none")]
        fractions = np.zeros(BINS)
        fractions[bins.index] = bins["count"] / bins["count"].sum()
        # Logarithms are drawn on a linear axis, since a logarithmic axis takes half a second per panel.
        heights = np.clip(1 + np.log10(np.maximum(fractions, 1e-9)) / 6, 0, 1)
        axes.stairs(heights, np.linspace(0, 1, BINS + 1), fill=True, color="tab:blue", alpha=0.15)
        axes.set_title(model, fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(models) : rows * columns]:
        axes.set_visible(False)
    figure.supxlabel("predicted probability of a class", fontsize=9)
    figure.supylabel("frequency of the class", fontsize=9)
    title = "area: fraction of voxels, logarithmic from 1e-6 to 1"
    figure.legend(
        lines.values(), lines.keys(), loc="outside upper right", ncols=2, frameon=False, fontsize=8, title=title
    )
    return figure
