"""The tables of the page on variability."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cm_lightning.evaluation.comparison import Comparison, compare_quantity
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.evaluation.statistics import mean_interval, signed_rank_p
from cm_lightning.evaluation.tables import comparison_table
from cm_lightning.uncertainty.partial_correlation import explained_variance
from cm_lightning.variability.results import QUESTIONS, Variability


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


def question_table(found: Variability) -> ReportTable:
    """Does confidence predict where labels differ, beyond depth?"""
    lines = []
    for name, title in QUESTIONS.items():
        for key, condition in (
            (f"{name}_alone", "nothing given"),
            (f"{name}_given", "given"),
            (f"{name}_given_shuffled", "given, another patient's map"),
        ):
            values = found.rater_values(key).dropna().to_numpy()
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
    shares = {name: explained_variance(spread, of, patients) for name, of in predictors.items()}
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
        values = found.rater_values(key).dropna()
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


def uncertainty_table(found: Variability) -> ReportTable:
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
