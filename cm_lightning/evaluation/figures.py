"""The report's figures."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure


def box_plot(values: pd.DataFrame, heading: str) -> Figure:
    """Draw a box a model with a point a participant, as the study's Fig. 3.

    Args:
        values: A row per participant, a column per model, mean over classes.
        heading: Name and unit of the values.

    Returns:
        The figure.
    """
    columns = [values[model].dropna().to_numpy() for model in values]
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(columns)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(columns))[::-1]
    axes.boxplot(columns, positions=places, orientation="horizontal", widths=0.6, showfliers=False)
    generator = np.random.default_rng(0)
    for place, column in zip(places, columns, strict=True):
        spread = place + generator.uniform(-0.15, 0.15, len(column))
        axes.plot(column, spread, "o", markersize=3.5, alpha=0.6, color="tab:blue")
    axes.set_yticks(places, list(values.columns))
    axes.set_xlabel(f"{heading}, mean over classes; a point is a participant")
    axes.grid(axis="x", alpha=0.3)
    return figure


def level_plot(profiles: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the error of every model against confidence and depth.

    Args:
        profiles: By what the error was sorted by, a row per model and a column per level.

    Returns:
        The figure, with a panel for each that was measured.
    """
    titles = {"confidence": "confidence of the map", "depth": "depth, as a share of what is insonified"}
    kinds = [by for by in titles if by in profiles]
    figure = Figure(figsize=(4.6 * len(kinds) + 2.4, 4.0), layout="constrained")
    places = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, by in zip(places, kinds, strict=True):
        profile = profiles[by]
        colours = colormaps["tab10" if len(profile) <= 10 else "tab20"]
        for number, (model, errors) in enumerate(profile.iterrows()):
            middles = (errors.index.to_numpy() + 0.5) / 10
            style = ("-", "--")[number // colours.N % 2]
            axes.plot(middles, errors, style, marker="o", markersize=3, color=colours(number % colours.N), label=model)
        axes.set_xlabel(titles[by])
        axes.set_xlim(0, 1)
        axes.grid(alpha=0.3)
    places[0].set_ylabel("wrong share of prediction and label")
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def critical_difference_plot(values: pd.DataFrame, heading: str, higher_is_better: bool) -> Figure | None:
    """Draw the mean ranks of the models, with a bar over those that do not differ (Demsar 2006; Nemenyi's test).

    Args:
        values: A row per participant, a column per model, mean over classes, without gaps; lost and invented classes
            count with their worst value.
        heading: Name and unit of the values.
        higher_is_better: Whether the highest value has rank 1.

    Returns:
        The figure; None with fewer than three models or participants that all of them tested.
    """
    import scikit_posthocs  # brings statsmodels and seaborn: seconds that no other command should wait

    if min(values.shape) < 3:
        return None
    ranks = values.rank(axis=1, ascending=not higher_is_better).mean()
    figure = Figure(figsize=(9, 1.4 + 0.22 * len(ranks)), layout="constrained")
    axes = figure.subplots()
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(values.to_numpy())
    p_values = p_values.set_axis(values.columns).set_axis(values.columns, axis=1).fillna(1.0)
    scikit_posthocs.critical_difference_diagram(
        ranks,
        p_values,
        ax=axes,
        label_fmt_left="{label} ({rank:.1f})",
        label_fmt_right="({rank:.1f}) {label}",
        label_props={"fontsize": 8},
    )
    axes.set_title(f"mean rank, {heading}, over {len(values)} participants (1 is best)", fontsize=9)
    return figure
