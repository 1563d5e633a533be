"""Reliability diagrams: how often a class is where it is stated with some probability."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cm_lightning.metrics.calibration import BINS, reliability


def reliability_plot(calibration: pd.DataFrame, columns: int = 4) -> Figure:
    """Draw how often a class is where a model states it with some probability: on the diagonal if it is calibrated.

    Args:
        calibration: Long table of sums by probability of all models.
        columns: Panels side by side.

    Returns:
        The figure, with a panel per model: voxels of all classes, scans and seeds, a line as the model is and one after
        scaling where it was measured; the area behind is the share of its voxels as it is, on a logarithmic scale
        from 1e-6 to 1.
    """
    points = reliability(calibration)
    models = list(dict.fromkeys(calibration["model"]))
    columns = min(columns, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(3.2 * columns + 0.6, 3.0 * rows + 0.4), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    styles = {"none": ("o-", "tab:blue", "as it is"), "temperature": ("s--", "tab:orange", "after temperature scaling")}
    lines: dict[str, Line2D] = {}
    for axes, model in zip(places, models, strict=False):
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
        for done, (style, colour, name) in styles.items():
            if done in points.loc[model].index:
                found = points.loc[(model, done)]
                (lines[name],) = axes.plot(
                    found["probability"], found["frequency"], style, color=colour, markersize=3, linewidth=1
                )
        found = points.loc[(model, "none")]
        shares = np.zeros(BINS)
        shares[found.index] = found["count"] / found["count"].sum()
        # On the same axis: a logarithmic one a panel takes half a second.
        heights = np.clip(1 + np.log10(np.maximum(shares, 1e-9)) / 6, 0, 1)
        axes.stairs(heights, np.linspace(0, 1, BINS + 1), fill=True, color="tab:blue", alpha=0.15)
        axes.set_title(model, fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    for axes in list(figure.axes)[len(models) : rows * columns]:
        axes.set_visible(False)
    figure.supxlabel("stated probability of a class", fontsize=9)
    figure.supylabel("frequency of the class", fontsize=9)
    title = "area: share of the voxels, logarithmic from 1e-6 to 1"
    figure.legend(
        lines.values(), lines.keys(), loc="outside upper right", ncols=2, frameon=False, fontsize=8, title=title
    )
    return figure
