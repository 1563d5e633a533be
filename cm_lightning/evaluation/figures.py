"""Figures of the report."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from cm_lightning.statistics.friedman import nemenyi
from cm_lightning.statistics.ranks import rank_columns


def box_plot(values: pd.DataFrame, heading: str) -> Figure:
    """Draw one box per model with one point per participant, as in Fig. 3 of the study.

    Args:
        values: Values with one row per participant and one column per model, mean over classes.
        heading: Name and unit of the values.

    Returns:
        The figure.
    """
    columns = [values[model].dropna().to_numpy() for model in values]
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(columns)), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(columns))[::-1]
    axes.boxplot(columns, positions=positions, orientation="horizontal", widths=0.6, showfliers=False)
    generator = np.random.default_rng(0)
    for position, column in zip(positions, columns, strict=True):
        jittered = position + generator.uniform(-0.15, 0.15, len(column))
        axes.plot(column, jittered, "o", markersize=3.5, alpha=0.6, color="tab:blue")
    axes.set_yticks(positions, list(values.columns))
    axes.set_xlabel(f"{heading}, mean over classes; each point is a participant")
    axes.grid(axis="x", alpha=0.3)
    return figure


def level_plot(profiles: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the error of each model against confidence and depth.

    Args:
        profiles: Errors by ``confidence`` and ``depth``, each with one row per model and one column per level.

    Returns:
        The figure, with one panel per profile.
    """
    titles = {"confidence": "confidence", "depth": "depth, relative to the insonified rows"}
    kinds = [by for by in titles if by in profiles]
    figure = Figure(figsize=(4.6 * len(kinds) + 2.4, 4.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, by in zip(panels, kinds, strict=True):
        profile = profiles[by]
        colours = colormaps["tab10" if len(profile) <= 10 else "tab20"]
        for number, (model, errors) in enumerate(profile.iterrows()):
            centres = (errors.index.to_numpy() + 0.5) / 10
            style = ("-", "--")[number // colours.N % 2]
            axes.plot(centres, errors, style, marker="o", markersize=3, color=colours(number % colours.N), label=model)
        axes.set_xlabel(titles[by])
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("error, fraction of predicted or labelled voxels")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def critical_difference_plot(values: pd.DataFrame, heading: str, higher_is_better: bool) -> Figure | None:
    """Draw the mean ranks of the models; bars connect models that do not differ significantly (Nemenyi test).

    Networks are taken as fixed.

    Args:
        values: Values with one row per participant and one column per model, mean over classes, without missing values.
        heading: Name and unit of the values.
        higher_is_better: Whether the highest value has rank 1.

    Returns:
        The figure; None with fewer than three models or participants.

    References:
        Demsar, "Statistical comparisons of classifiers over multiple data sets", JMLR 2006.
    """
    import scikit_posthocs  # imports statsmodels and seaborn, which takes seconds

    if min(values.shape) < 3:
        return None
    mean_ranks = rank_columns(values.to_numpy(dtype=float), higher_is_better).mean(axis=0)
    ranks = pd.Series(mean_ranks, index=values.columns)
    figure = Figure(figsize=(9, 1.4 + 0.22 * len(ranks)), layout="constrained")
    axes = figure.subplots()
    scikit_posthocs.critical_difference_diagram(
        ranks,
        nemenyi(values),
        ax=axes,
        label_fmt_left="{label} ({rank:.1f})",
        label_fmt_right="({rank:.1f}) {label}",
        label_props={"fontsize": 8},
    )
    axes.set_title(
        f"mean rank, {heading}, over {len(values)} participants (1 is best), conditional on these trained networks",
        fontsize=9,
    )
    return figure
