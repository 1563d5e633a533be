"""The figures of the page on variability."""

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
from cm_lightning.evaluation.statistics import mean_interval
from cm_lightning.uncertainty.raters import entropy
from cm_lightning.variability.image_sampler import CONVERGENCE
from cm_lightning.variability.model_measures import DEPTH_BINS
from cm_lightning.variability.results import QUESTIONS, Key, Variability

SHOWN = 3  # images, each of another patient
CONTOURS = 30  # of samples and labels


def image_figures(found: Variability) -> Iterator[Drawing]:
    """Images, one a patient: labels, and the entropy of raters and of networks on one scale; and their contours."""
    keys = _shown(found)
    repeated = len(found.raters) > 0
    classes = len(found.class_names) + 1
    scale = Scale("entropy [nats]", math.log(classes), "magma")
    rows = []
    for key in keys:
        frame, sampled = found.shown[key]
        image, spacing, unit = frame.image.image, frame.image.spacing, frame.image.unit
        row = [Panel(f"{key[0]}: label", image, spacing, unit, frame.consensus)]
        row.append(Panel("confidence map", np.nan_to_num(frame.image.confidence), spacing, unit, scale=CONFIDENCE))
        if repeated:
            row.append(Panel("raters' entropy", entropy(frame.distribution), spacing, unit, scale=scale))
        row += [Panel(name, entropy(one.mean), spacing, unit, scale=scale) for name, one in sampled.items()]
        rows.append(row)
    heading = "Where networks hesitate" + (" and raters differ" if repeated else "")
    yield "entropy", heading, draw_panels(rows, found.class_names)
    yield "contours", "Contours of labels and of samples" if repeated else "Contours of samples", _contours(found, keys)


def number_figures(found: Variability) -> Iterator[Drawing]:
    """Reliability, profiles over depth, convergence, and the confidence question patient by patient."""
    yield "reliability", "What is stated, and how often it is so", _reliability(found)
    yield "depth", "Over depth", _profiles(found)
    yield "convergence", "How many samples are enough", _convergence(found)
    if len(found.raters):
        yield "question", "Confidence and the labels' variability, patient by patient", _question(found)


def _shown(found: Variability) -> list[Key]:
    """One image each of the patients whose labels differ least, middlingly and most; without repeats, of the first."""
    if not len(found.raters):
        return list(found.shown)[:SHOWN]
    entropies = found.rater_values("entropy")
    order = sorted(found.shown, key=lambda key: entropies[found.shown[key].frame.image.patient])
    places = np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int)
    return [order[place] for place in places]


def _contours(found: Variability, keys: Sequence[Key]) -> Figure:
    repeated = len(found.raters) > 0
    columns = [*(["raters"] if repeated else []), *found.models]
    shape = found.shown[keys[0]].frame.image.image.shape
    figure = Figure(figsize=(3.1 * len(columns), 3.3 * len(keys) * min(1.6, shape[0] / shape[1])), layout="constrained")
    places = figure.subplots(len(keys), len(columns), squeeze=False)
    for key, line in zip(keys, places, strict=True):
        frame, sampled = found.shown[key]
        of = {"raters": frame.labels, **{model: one.samples for model, one in sampled.items()}}
        for name, axes in zip(columns, line, strict=True):
            height, width = (n * s for n, s in zip(frame.image.image.shape, frame.image.spacing, strict=True))
            corners = (0.0, width, height, 0.0)
            axes.imshow(frame.image.image, cmap="gray", vmin=0, vmax=1, extent=corners)
            for labels in of[name][:CONTOURS]:
                _outline(axes, labels, len(found.class_names), corners)
            axes.set_title(f"{key[0]}: {name}" if name == columns[0] else name, fontsize=9)
            axes.tick_params(labelsize=7)
    handles = [Line2D([], [], color=class_colour(i), label=n) for i, n in enumerate(found.class_names, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _outline(axes: Axes, labels: NDArray[np.uint8], classes: int, corners: tuple[float, float, float, float]) -> None:
    for index in range(1, classes + 1):
        mask = (labels == index).astype(float)
        if mask.any() and not mask.all():
            style: dict[str, Any] = {"linewidths": 0.5, "alpha": 0.5, "extent": corners, "origin": "upper"}
            axes.contour(mask, [0.5], colors=[class_colour(index)], **style)


def _reliability(found: Variability) -> Figure:
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=1)
    for model in found.models:
        sums = found.bins[found.bins["model"] == model].groupby("bin")[["count", "probability", "share"]].sum()
        sums = sums[sums["count"] > 0]
        axes.plot(sums["probability"] / sums["count"], sums["share"] / sums["count"], "o-", markersize=4, label=model)
    axes.set_xlabel("probability of a class, mean over samples")
    axes.set_ylabel("share of the labels that have it" if len(found.raters) else "how often the label has it")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _profiles(found: Variability) -> Figure:
    """Means over patients with bootstrap bands; disagreement and confidence are the same for all models."""
    measured = set(found.profiles["quantity"])
    kinds = [name for name in ("doubt", "disagreement", "error", "confidence") if name in measured]
    titles = {
        "doubt": "networks' entropy [nats]",
        "disagreement": "labels' entropy [nats]",
        "error": "share of wrong pixels",
        "confidence": "confidence",
    }
    middles = (np.arange(DEPTH_BINS) + 0.5) / DEPTH_BINS * found.deepest
    figure = Figure(figsize=(3.6 * len(kinds) + 1.6, 3.6), layout="constrained")
    places = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(places, kinds, strict=True):
        for model in found.models if kind in ("doubt", "error") else found.models[:1]:
            rows = found.profiles[(found.profiles["quantity"] == kind) & (found.profiles["model"] == model)]
            table = rows.groupby(["patient", "part"])["value"].mean().unstack("part").reindex(columns=range(DEPTH_BINS))
            means = table.mean()
            parts = [column.dropna().to_numpy() for _, column in table.items()]
            bands = [mean_interval(values) if len(values) > 1 else (math.nan, math.nan) for values in parts]
            colour = {} if kind in ("doubt", "error") else {"color": "black"}
            (line,) = axes.plot(middles, means, label=model, **colour)
            axes.fill_between(middles, *zip(*bands, strict=True), alpha=0.2, color=line.get_color(), linewidth=0)
        axes.set_xlabel(f"depth [{found.unit}]")
        axes.set_title(titles[kind], fontsize=9)
        axes.grid(alpha=0.3)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _convergence(found: Variability) -> Figure:
    numbers = [str(number) for number in CONVERGENCE]
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for model in found.models:
        means = found.convergence[found.convergence["model"] == model][numbers].mean().dropna()
        axes.plot([int(number) for number in means.index], means, "o-", markersize=4, label=model)
    axes.set_xscale("log")
    axes.set_xlabel("samples")
    axes.set_ylabel("mean difference of the entropy\nto that of all samples [nats]")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _question(found: Variability) -> Figure:
    figure = Figure(figsize=(4.4 * len(QUESTIONS), 4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(QUESTIONS), sharey=True), QUESTIONS.items(), strict=True):
        columns = [found.rater_values(f"{name}_{kind}") for kind in ("alone", "given", "given_shuffled")]
        for place, column in enumerate(columns):
            spread = place + np.linspace(-0.15, 0.15, len(column))
            axes.plot(spread, column, "o", markersize=4, alpha=0.6)
            axes.plot([place - 0.25, place + 0.25], [column.mean()] * 2, color="black")
        axes.axhline(0, color="gray", linewidth=1)
        axes.set_xticks(range(3), ["alone", "given", "given,\nother map"])
        axes.set_title(title, fontsize=9)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("rank correlation with confidence")
    return figure
