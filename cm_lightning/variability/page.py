"""The page on variability: where a network hesitates, where raters do, and whether the two agree."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from cm_lightning.drawing import CONFIDENCE, Panel, Scale, class_colour, draw_panels
from cm_lightning.evaluation.comparison import Comparison, compare_quantity
from cm_lightning.evaluation.page import Drawing, Page
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.evaluation.statistics import mean_interval, signed_rank_p
from cm_lightning.evaluation.tables import comparison_table, problem_table
from cm_lightning.runs.versions import versions
from cm_lightning.uncertainty.confidence_question import explained_share
from cm_lightning.uncertainty.raters import entropy
from cm_lightning.variability.image_sampler import CONVERGENCE, SampledImage
from cm_lightning.variability.measures import DEPTH_BINS, Boundary, Frame

Key = tuple[str, int]
SHOWN = 3  # images, each of another patient
CONTOURS = 30  # of samples and labels


class Measure(NamedTuple):
    """A measure of the agreement table.

    Attributes:
        title: Heading.
        target: What it should be: as ``high`` or ``low`` as can be, or ``one``; None for what only describes.
    """

    title: str
    target: Literal["high", "low", "one"] | None = None


MEASURES = {
    "ncc": Measure("NCC of entropies", "high"),
    "spearman": Measure("Spearman", "high"),
    "ncc_information": Measure("NCC, mutual information", "high"),
    "diversity": Measure("diversity ratio", "one"),
    "boundary_slope": Measure("slope of boundary SD", "one"),
    "boundary_ratio": Measure("ratio of boundary SD", "one"),
    "boundary_spearman": Measure("Spearman of boundary SD", "high"),
    "energy": Measure("GED²", "low"),
    "energy_between": Measure("E d(sample, label)"),
    "energy_samples": Measure("E d(sample, sample)"),
    "energy_labels": Measure("E d(label, label)"),
    "brier": Measure("Brier", "low"),
    "divergence": Measure("KL", "low"),
    "ece": Measure("ECE", "low"),
    "ece_by_chance": Measure("ECE by chance"),
    "area_distance": Measure("Wasserstein of areas", "low"),
    "area_crps": Measure("CRPS of areas", "low"),
}
COMPARED = ("ncc", "diversity", "boundary_slope", "energy", "ece", "disagreement_auroc/MC entropy")
QUESTIONS = {
    "sd": "boundary SD of the labels, given depth",
    "entropy": "entropy of the labels, given depth and distance to the boundary",
}


class ShownImage(NamedTuple):
    """An image for the page.

    Attributes:
        frame: The image and its labels.
        sampled: What the first seed of every model says of it.
    """

    frame: Frame
    sampled: dict[str, SampledImage]


@dataclass(frozen=True)
class Variability:
    """What was measured on all images.

    Attributes:
        class_names: Names of the classes 1, 2, ...
        unit: Of distances.
        deepest: Depth of the deepest frame.
        shown: An image of every patient by case and frame.
        boundaries: Points of the consensus' boundaries, where labels are repeated.
        measures: Long table by model, seed, patient, case, frame and measure.
        raters: The same of the labels alone; empty without repeated labels.
        profiles: Means by depth, by model, seed, patient, case, frame, quantity and part.
        bins: Reliability by model, seed, patient, case, frame and bin.
        convergence: Difference of the entropy to that of all samples, a column for every number of samples.
    """

    class_names: list[str]
    unit: str
    deepest: float
    shown: dict[Key, ShownImage]
    boundaries: dict[Key, Boundary]
    measures: pd.DataFrame
    raters: pd.DataFrame
    profiles: pd.DataFrame
    bins: pd.DataFrame
    convergence: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """All models, in the order of the folders."""
        return list(dict.fromkeys(self.measures["model"]))

    def values(self, measure: str) -> pd.DataFrame:
        """Every patient's value of every model: the mean over images and seeds."""
        rows = self.measures[self.measures["measure"] == measure]
        means = rows.groupby(["model", "patient"], sort=False)["value"].mean().unstack("model")
        return means.reindex(columns=self.models)

    def of_raters(self, measure: str) -> pd.Series:
        """Every patient's value of what is measured on the labels alone: the mean over images."""
        rows = self.raters[self.raters["measure"] == measure]
        return rows.groupby("patient", sort=False)["value"].mean()


def variability_page(
    found: Variability,
    comparisons: Sequence[Comparison],
    samples: int,
    problems: Sequence[tuple[str, str]] = (),
) -> Page:
    """Put everything on a page.

    Args:
        found: What was measured.
        comparisons: Those that were planned.
        samples: Number of passes with dropout.
        problems: Experiments that were left out, each with the reason.

    Returns:
        The page.
    """
    repeated = len(found.raters) > 0
    patients = found.measures["patient"].nunique()
    numbers = sorted({len(one.frame.labels) for one in found.shown.values()})
    drawn_by = len({rater for one in found.shown.values() for rater in one.frame.raters})
    images = len(found.measures.drop_duplicates(["case", "frame"]))
    labels = f"{' or '.join(map(str, numbers))} labels by {drawn_by} rater(s) each" if repeated else "one label each"
    tables = [
        problem_table(list(problems)),
        *([question_table(found), explained_table(found), rater_table(found)] if repeated else []),
        *([agreement_table(found)] if repeated else []),
        *([predictor_table(found, "disagreement")] if repeated else []),
        predictor_table(found, "error"),
        doubt_table(found),
        *comparison_tables(found, comparisons),
    ]
    return Page(
        title="Where networks hesitate" + (", and where raters do" if repeated else ""),
        about=f"{images} images of {patients} patients, {labels}; {len(found.models)} models, "
        f"{found.measures['seed'].nunique()} seed(s), {samples} samples with dropout. A patient's value is the mean "
        f"over images and seeds; patients are what is counted. Distances in {found.unit}. What is said of "
        "pixels is said of those near a boundary of the labels' consensus (a tenth of the frame's depth).",
        tables=[table for table in tables if table is not None],
        first=image_figures(found),
        figures=number_figures(found),
        again=f"Made from the samples kept beside this page with "
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
    )


def question_table(found: Variability) -> ReportTable:
    """Does confidence predict where labels differ, beyond depth?"""
    lines = []
    for name, title in QUESTIONS.items():
        for key, condition in (
            (f"{name}_alone", "nothing given"),
            (f"{name}_given", "given"),
            (f"{name}_given_shuffled", "given, another patient's map"),
        ):
            values = found.of_raters(key).dropna().to_numpy()
            lines.append([Cell(title), Cell(condition), *_tested(values)])
    return ReportTable(
        "question",
        "Do confidence maps predict where labels differ?",
        "Rank correlation of confidence with the labels' variability, one a patient; negative where labels differ more "
        "in low confidence. Confidence falls with depth by construction, so that the correlation with nothing given "
        "says little: given means that whatever any smooth function of depth (and distance) predicts was taken out of "
        "both. Another patient's map has confidence's dependence on depth and knows nothing of the image. Intervals by "
        "bootstrap over patients; p by exact signed ranks.",
        ["variability", "condition", "mean correlation", "95 %", "p", "patients"],
        lines,
    )


def explained_table(found: Variability) -> ReportTable | None:
    """How much of the labels' spread depth, confidence and both predict in patients not learnt from."""
    used = {key: one for key, one in found.boundaries.items() if len(one.sd) and np.isfinite(one.confidence).all()}
    of_key = found.measures.drop_duplicates(["case", "frame"]).set_index(["case", "frame"])["patient"]
    patients = [str(of_key[key]) for key in used]
    if len(set(patients)) < 3:
        return None
    points = list(used.values())
    # Labels lie on pixels: an SD below the quantisation is not known, and its logarithm would be an outlier.
    spread = [np.log(np.maximum(one.sd, one.pixel / math.sqrt(12))) for one in points]
    predictors = {
        "depth": [one.depths for one in points],
        "confidence": [[one.confidence] for one in points],
        "depth and confidence": [[*one.depths, one.confidence] for one in points],
        "depth and another patient's map": [[*one.depths, np.nan_to_num(one.other)] for one in points],
    }
    shares = {name: explained_share(spread, of, patients) for name, of in predictors.items()}
    lines = []
    for name, share in shares.items():
        more = share - shares["depth"]
        gain = [Cell("-"), Cell("-")] if name == "depth" else [Cell(_number(more.mean())), Cell(_p(more))]
        lines.append([Cell(name), Cell(_number(share.mean())), Cell(_interval(share)), *gain, Cell(str(len(share)))])
    return ReportTable(
        "explained",
        "How much of the labels' spread is predicted",
        "Share of the variance of the logarithm of the boundary SD that a smooth curve predicts in a patient, learnt "
        "from the others; below 0 where guessing the others' mean is better. Gain is over depth alone. "
        f"{len(points)} images.",
        ["predicted by", "share", "95 %", "gain", "p", "patients"],
        lines,
    )


def rater_table(found: Variability) -> ReportTable:
    """How labels of one image differ, within raters and between them."""
    titles = {
        "intra_dice": "Dice of two labels by one rater (intra)",
        "inter_dice": "Dice of two labels by two raters (inter)",
        "boundary_sd": f"boundary SD over all labels, mean along the boundaries ({found.unit})",
        "within_rater_sd": f"boundary SD within a rater, root of the mean variance ({found.unit})",
        "between_rater_sd": f"boundary SD between raters without that within, likewise ({found.unit})",
        "entropy": "entropy, mean over insonified pixels (nats)",
    }
    lines = []
    for key, title in titles.items():
        values = found.of_raters(key).dropna()
        cells = (values.mean(), values.std(), values.min(), values.max())
        lines.append([Cell(title), *(Cell(_number(value)) for value in cells), Cell(str(len(values)))])
    return ReportTable(
        "raters",
        "How labels differ",
        "Over patients; the Dice is the mean over classes. Repeats by one rater and labels by several are kept apart.",
        ["", "mean", "SD", "lowest", "highest", "patients"],
        lines,
    )


def agreement_table(found: Variability) -> ReportTable:
    """Agreement of every model's samples with the labels."""
    values = {name: found.values(name) for name in MEASURES}
    near = {name: _closeness(table, MEASURES[name].target).mean() for name, table in values.items()}
    lines = []
    for model in found.models:
        line = [Cell(model)]
        for name, table in values.items():
            is_best = MEASURES[name].target is not None and bool(near[name][model] == near[name].max())
            line.append(Cell(f"{_number(table[model].mean())} ± {_number(table[model].std())}", is_best))
        lines.append(line)
    return ReportTable(
        "agreement",
        "How samples agree with labels",
        "Mean ± SD over patients. Where: correlation of the networks' entropy (or mutual information) with that of the "
        "labels. How much: the diversity ratio is the mean distance (one less IoU) of two samples over that of two "
        "labels, 1 where networks vary as raters do; slope and ratio of the boundary SD likewise. In distribution: the "
        "unbiased squared generalised energy distance and its terms. In probability: Brier, Kullback-Leibler and "
        "calibration error against the labels' distribution; of networks that were calibrated perfectly, and labels "
        "that were drawn pixel by pixel, 39 in 40 would have an ECE below that by chance in an image. In area: in "
        "shares of the labels' mean area. Bold is nearest to what it should be.",
        ["model", *(measure.title for measure in MEASURES.values())],
        lines,
    )


def predictor_table(found: Variability, event: Literal["disagreement", "error"]) -> ReportTable:
    """What finds the pixels where labels disagree, or where a network is wrong."""
    prefix = f"{event}_auroc/"
    names = [name for name in dict.fromkeys(found.measures["measure"]) if name.startswith(prefix)]
    names = [name for name in names if found.values(name).notna().any(axis=None)]
    tables = {name: found.values(name) for name in names}
    lines = []
    for name, table in tables.items():
        line = [Cell(name.removeprefix(prefix))]
        for model in found.models:
            values = table[model].dropna().to_numpy()
            highest = max(of[model].mean() for of in tables.values())
            line.append(Cell(f"{_number(values.mean())} ({_interval(values)})", bool(values.mean() == highest)))
        lines.append(line)
    what = {
        "disagreement": "on which fewer than nine in ten labels agree",
        "error": "that the mean prediction has wrong",
    }[event]
    return ReportTable(
        f"predictors_of_{event}",
        f"What finds {event}",
        f"Area under the ROC curve for the pixels {what}, near boundaries; 0.5 for a score that knows nothing. Mean "
        "over patients, with its bootstrap interval. Depth alone and distance to the predicted boundary alone are what "
        "any other score has to beat.",
        ["score", *found.models],
        lines,
    )


def doubt_table(found: Variability) -> ReportTable:
    """How a network's doubt and errors go with confidence."""
    titles = {
        "entropy_confidence": "entropy, nothing given",
        "entropy_confidence_given": "entropy, given depth and distance",
        "error_confidence": "error, nothing given",
        "error_confidence_given": "error, given depth and distance",
    }
    lines = []
    for model in found.models:
        for key, title in titles.items():
            lines.append([Cell(model), Cell(title), *_tested(found.values(key)[model].dropna().to_numpy())])
    return ReportTable(
        "doubt",
        "Does a network's doubt go with confidence?",
        "Rank correlation of the image's own confidence map with the entropy of the samples, and with whether the "
        "prediction is wrong, near boundaries; distance is to the predicted boundary. Negative where there is more in "
        "low confidence.",
        ["model", "with", "mean correlation", "95 %", "p", "patients"],
        lines,
    )


def comparison_tables(found: Variability, comparisons: Sequence[Comparison]) -> Iterator[ReportTable]:
    """Planned comparisons of the models over patients, each on how near a measure is to what it should be."""
    names = COMPARED if len(found.raters) else ("error_auroc/MC entropy", "ece")
    for name in names:
        measure = MEASURES.get(name, Measure(name.replace("_auroc/", ", AUROC of "), "high"))
        values = found.values(name)
        title = measure.title
        if measure.target == "one":
            values, title = values.map(lambda value: abs(math.log(max(value, 1e-3)))), f"|log of {measure.title}|"
        quantity = compare_quantity(name.replace("/", "_").replace(" ", "_"), title, values, comparisons)
        if quantity is not None:
            yield comparison_table(quantity)


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
    entropies = found.of_raters("entropy")
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
        columns = [found.of_raters(f"{name}_{kind}") for kind in ("alone", "given", "given_shuffled")]
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


def _tested(values: NDArray[np.float64]) -> list[Cell]:
    """Mean, interval, p-value against 0 and number of patients."""
    if len(values) < 2:
        return [Cell(_number(values.mean()) if len(values) else "-"), Cell("-"), Cell("-"), Cell(str(len(values)))]
    return [Cell(_number(values.mean())), Cell(_interval(values)), Cell(_p(values)), Cell(str(len(values)))]


def _interval(values: NDArray[np.floating[Any]]) -> str:
    return "{:.3f} to {:.3f}".format(*mean_interval(values)) if len(values) > 1 else "-"


def _p(values: NDArray[np.floating[Any]]) -> str:
    return f"{signed_rank_p(values.astype(np.float64)):.2g}"


def _closeness(values: Any, target: str | None) -> Any:
    """Turn values so that more is better."""
    match target:
        case "high":
            return values
        case "one":
            return -np.abs(np.log(np.maximum(values, 1e-3)))
        case _:
            return -values


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
