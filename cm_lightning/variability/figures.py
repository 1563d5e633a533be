"""Figures of the page on predictive uncertainty and rater variability."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cm_lightning.drawing import CONFIDENCE, Panel, Scale, class_colour, draw_panels
from cm_lightning.evaluation.page import Drawing
from cm_lightning.statistics.means import mean_interval
from cm_lightning.uncertainty.raters import entropy
from cm_lightning.variability.image_sampler import CONVERGENCE
from cm_lightning.variability.model_measures import DEPTH_BINS
from cm_lightning.variability.results import CORRELATIONS, Key, Variability

# Number of images that are shown, from different patients.
SHOWN_IMAGES = 3
# Largest number of contours in one panel.
CONTOURS = 30


def image_figures(results: Variability) -> Iterator[Drawing]:
    """Draw the entropy of labels and networks on a common scale, and the contours of labels and samples."""
    keys = _shown(results)
    repeated = len(results.raters) > 0
    classes = len(results.class_names) + 1
    scale = Scale("entropy [nats]", math.log(classes), "magma")
    rows = []
    for key in keys:
        frame, sampled = results.shown[key]
        pixels, spacing, unit = frame.image.image, frame.image.spacing, frame.image.unit
        row = [Panel(f"{key[0]}: label", pixels, spacing, unit, frame.consensus)]
        row.append(Panel("confidence map", np.nan_to_num(frame.image.confidence), spacing, unit, scale=CONFIDENCE))
        if repeated:
            row.append(Panel("entropy of the labels", entropy(frame.distribution), spacing, unit, scale=scale))
        row += [Panel(name, entropy(image.mean), spacing, unit, scale=scale) for name, image in sampled.items()]
        rows.append(row)
    heading = "Predictive uncertainty" + (" and rater variability" if repeated else "")
    yield "entropy", heading, draw_panels(rows, results.class_names)
    yield (
        "contours",
        "Contours of labels and of samples" if repeated else "Contours of samples",
        _contours(results, keys),
    )


def number_figures(results: Variability) -> Iterator[Drawing]:
    """Draw reliability, profiles over depth, convergence, and the correlation with confidence for each patient."""
    yield "reliability", "Reliability diagram", _reliability(results)
    yield "depth", "Profiles over depth", _profiles(results)
    yield "convergence", "Convergence with the number of samples", _convergence(results)
    if len(results.raters):
        yield "question", "Correlation of confidence and rater variability, by patient", _correlations(results)


def _shown(results: Variability) -> list[Key]:
    """Select images of the patients with the smallest, the median and the largest variability of the labels.

    Without repeated labels, the first images are selected.
    """
    if not len(results.raters):
        return list(results.shown)[:SHOWN_IMAGES]
    entropies = results.rater_values("entropy")
    order = sorted(results.shown, key=lambda key: entropies[results.shown[key].frame.image.patient])
    positions = np.linspace(0, len(order) - 1, min(SHOWN_IMAGES, len(order))).round().astype(int)
    return [order[position] for position in positions]


def _contours(results: Variability, keys: Sequence[Key]) -> Figure:
    repeated = len(results.raters) > 0
    columns = [*(["raters"] if repeated else []), *results.models]
    shape = results.shown[keys[0]].frame.image.image.shape
    figure = Figure(figsize=(3.1 * len(columns), 3.3 * len(keys) * min(1.6, shape[0] / shape[1])), layout="constrained")
    panels = figure.subplots(len(keys), len(columns), squeeze=False)
    for key, row in zip(keys, panels, strict=True):
        frame, sampled = results.shown[key]
        segmentations = {"raters": frame.labels, **{model: image.samples for model, image in sampled.items()}}
        for name, axes in zip(columns, row, strict=True):
            height, width = np.multiply(frame.image.image.shape, frame.image.spacing).tolist()
            corners = (0.0, width, height, 0.0)
            axes.imshow(frame.image.image, cmap="gray", vmin=0, vmax=1, extent=corners)
            for labels in segmentations[name][:CONTOURS]:
                _outline(axes, labels, len(results.class_names), corners)
            axes.set_title(f"{key[0]}: {name}" if name == columns[0] else name, fontsize=9)
            axes.tick_params(labelsize=7)
    handles = [Line2D([], [], color=class_colour(i), label=name) for i, name in enumerate(results.class_names, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _outline(axes: Axes, labels: NDArray[np.uint8], classes: int, corners: tuple[float, float, float, float]) -> None:
    for index in range(1, classes + 1):
        mask = (labels == index).astype(float)
        if mask.any() and not mask.all():
            style: dict[str, Any] = {"linewidths": 0.5, "alpha": 0.5, "extent": corners, "origin": "upper"}
            axes.contour(mask, [0.5], colors=[class_colour(index)], **style)


def _reliability(results: Variability) -> Figure:
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    for model in results.models:
        sums = results.bins[results.bins["model"] == model].groupby("bin")[["count", "probability", "share"]].sum()
        sums = sums[sums["count"] > 0]
        axes.plot(sums["probability"] / sums["count"], sums["share"] / sums["count"], "o-", markersize=4, label=model)
    axes.set_xlabel("predicted probability of a class, mean over samples")
    axes.set_ylabel("fraction of the labels" if len(results.raters) else "observed frequency")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _profiles(results: Variability) -> Figure:
    """Draw means over patients with 95 % confidence bands, for each model or once if models do not differ."""
    measured = set(results.profiles["quantity"])
    kinds = [name for name in ("doubt", "disagreement", "error", "confidence") if name in measured]
    titles = {
        "doubt": "entropy of the networks [nats]",
        "disagreement": "entropy of the labels [nats]",
        "error": "fraction of wrong pixels",
        "confidence": "confidence",
    }
    centres = (np.arange(DEPTH_BINS) + 0.5) / DEPTH_BINS * results.deepest
    figure = Figure(figsize=(3.6 * len(kinds) + 1.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for model in results.models if kind in ("doubt", "error") else results.models[:1]:
            rows = results.profiles[(results.profiles["quantity"] == kind) & (results.profiles["model"] == model)]
            table = rows.groupby(["patient", "part"])["value"].mean().unstack("part").reindex(columns=range(DEPTH_BINS))
            means = table.mean()
            parts = [column.dropna().to_numpy() for _, column in table.items()]
            bands = [mean_interval(values) if len(values) > 1 else (math.nan, math.nan) for values in parts]
            colour = {} if kind in ("doubt", "error") else {"color": "black"}
            (line,) = axes.plot(centres, means, label=model, **colour)
            axes.fill_between(centres, *zip(*bands, strict=True), alpha=0.2, color=line.get_color(), linewidth=0)
        axes.set_xlabel(f"depth [{results.unit}]")
        axes.set_title(titles[kind], fontsize=9)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _convergence(results: Variability) -> Figure:
    numbers = [str(number) for number in CONVERGENCE]
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for model in results.models:
        means = results.convergence[results.convergence["model"] == model][numbers].mean().dropna()
        axes.plot([int(number) for number in means.index], means, "o-", markersize=4, label=model)
    axes.set_xscale("log")
    axes.set_xlabel("samples")
    axes.set_ylabel("mean difference from the entropy\nof all samples [nats]")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _correlations(results: Variability) -> Figure:
    figure = Figure(figsize=(4.4 * len(CORRELATIONS), 4), layout="constrained")
    for axes, (name, measure) in zip(
        figure.subplots(1, len(CORRELATIONS), sharey=True), CORRELATIONS.items(), strict=True
    ):
        columns = [results.rater_values(f"{name}_{kind}") for kind in ("alone", "given", "given_shuffled")]
        for position, column in enumerate(columns):
            jittered = position + np.linspace(-0.15, 0.15, len(column))
            axes.plot(jittered, column, "o", markersize=4, alpha=0.6)
            axes.plot([position - 0.25, position + 0.25], [column.mean()] * 2, color="black")
        axes.axhline(0, color="gray", linewidth=1)
        axes.set_xticks(range(3), ["not adjusted", "adjusted", "adjusted,\nmap of another\npatient"])
        axes.set_title(f"{measure.title},\nadjusted for {measure.covariates}", fontsize=9)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("Spearman correlation with confidence")
    return figure
