"""Tables of the page on predictive uncertainty and rater variability."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cm_lightning.evaluation.comparison import (
    Comparison,
    Family,
    common_folds,
    compare_quantity,
    correct,
    of_model,
)
from cm_lightning.evaluation.comparison_table import CONDITIONAL, SCOPES, comparison_table
from cm_lightning.evaluation.paired import zero_test
from cm_lightning.evaluation.report_table import Cell, ReportTable
from cm_lightning.statistics.means import mean_interval
from cm_lightning.statistics.signed_rank import hodges_lehmann, hodges_lehmann_interval, signed_rank_p
from cm_lightning.uncertainty.partial_correlation import explained_variance
from cm_lightning.variability.rater_measures import Boundary
from cm_lightning.variability.results import CORRELATIONS, Variability


class Measure(NamedTuple):
    """A measure of the agreement between samples and labels.

    Attributes:
        title: Heading.
        target: Ideal value: as ``high`` or as ``low`` as possible, or ``one``; None for descriptive measures.
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
    "energy": Measure("GED², unbiased", "low"),
    "energy_common": Measure("GED², biased", "low"),
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
# Predictors of rater variability other than confidence.
PLACE = "depth, class, orientation"
# Measures of the planned comparisons.
COMPARED_MEASURES = ("ncc", "diversity", "boundary_slope", "energy", "ece", "disagreement_auroc/MC entropy")


def correlation_table(results: Variability) -> ReportTable:
    """Create a table of the correlation of confidence with rater variability, not adjusted and adjusted for depth.

    Args:
        results: Measurements.

    Returns:
        The table.
    """
    lines = []
    for name, measure in CORRELATIONS.items():
        for key, condition in (
            (f"{name}_alone", "not adjusted"),
            (f"{name}_given", f"adjusted for {measure.covariates}"),
            (f"{name}_given_shuffled", f"adjusted for {measure.covariates}, another patient's map"),
        ):
            values = results.rater_values(key).dropna().to_numpy()
            lines.append([Cell(measure.title), Cell(condition), *_tested(values)])
    return ReportTable(
        "question",
        "Confidence and rater variability",
        "Spearman correlation of confidence with the variability of the labels in each patient; negative if labels "
        "vary more where confidence is low. Since confidence decreases with depth by construction, the correlation "
        "that is not adjusted is not evidence for a relation. The partial correlation removes smooth functions of "
        "depth and of the orientation of the boundary, and differences between classes, from both (for the entropy of "
        "pixels, each times a smooth function of the distance to the boundary). The boundary SD is the primary "
        "measure, and the entropy a secondary one. The map of another patient has the same dependence on depth but no "
        "information about the image. Hodges-Lehmann estimate with the interval of the exact Wilcoxon signed-rank test "
        "over patients.",
        ["variability", "condition", "correlation", "95 % CI", "p", "patients"],
        lines,
    )


def explained_table(results: Variability) -> ReportTable | None:
    """Create a table of how well depth and confidence explain the rater variability of held-out patients.

    Rater variability is the logarithm of the SD of the boundary positions. The table shows the explained fraction of
    its variation.

    Args:
        results: Measurements.

    Returns:
        The table; None with fewer than three patients.
    """
    used = {
        key: boundary
        for key, boundary in results.boundaries.items()
        if len(boundary.sd) and np.isfinite(boundary.confidence).all()
    }
    images = results.measures.drop_duplicates(["case", "frame"]).set_index(["case", "frame"])
    patients = [str(images["patient"][key]) for key in used]
    if len(set(patients)) < 3:
        return None
    boundaries = list(used.values())
    # Labels are quantised to pixels: smaller SDs are not reliable, and their logarithms would be outliers.
    log_sd = [np.log(np.maximum(boundary.sd, boundary.pixel / math.sqrt(12))) for boundary in boundaries]
    places = [_place(boundary) for boundary in boundaries]
    predictors = {
        "depth": [boundary.depths for boundary in boundaries],
        PLACE: places,
        "confidence": [[boundary.confidence] for boundary in boundaries],
        f"{PLACE} and confidence": [
            [*place, boundary.confidence] for place, boundary in zip(places, boundaries, strict=True)
        ],
        f"{PLACE} and another patient's map": [
            [*place, np.nan_to_num(boundary.other)] for place, boundary in zip(places, boundaries, strict=True)
        ],
    }
    explained = {name: explained_variance(log_sd, values, patients) for name, values in predictors.items()}
    lines = []
    for name, fractions in explained.items():
        gain = (
            [Cell("-")] * 3
            if PLACE in (name, f"{name}, class, orientation")
            else _tested(fractions - explained[PLACE])[:3]
        )
        line = [Cell(name), Cell(_number(fractions.mean())), Cell(_interval(fractions)), *gain]
        lines.append([*line, Cell(str(len(fractions)))])
    return ReportTable(
        "explained",
        "Explained rater variability",
        "Fraction of the variance of the logarithm of the boundary SD that smooth curves explain in a held-out "
        "patient, fitted to all other patients; negative if the mean of the other patients is a better prediction. "
        "The share is a mean with a bootstrap interval. The gain is relative to depth, class and orientation: "
        "Hodges-Lehmann estimate "
        f"with the interval of the exact Wilcoxon signed-rank test. {len(boundaries)} images.",
        ["predicted by", "share", "95 % CI", "gain", "95 % CI of the gain", "p", "patients"],
        lines,
    )


def _place(boundary: Boundary) -> list[NDArray[np.floating[Any]]]:
    """Return what is known of the points of a boundary without confidence: depth, class and orientation."""
    classes, angles = boundary.parts
    return [*boundary.depths, classes.astype(float), np.cos(2 * angles), np.sin(2 * angles)]


def rater_table(results: Variability) -> ReportTable:
    """Create a table of the variability of labels within and between raters.

    Args:
        results: Measurements.

    Returns:
        The table.
    """
    titles = {
        "intra_dice": "Dice of two labels by one rater (intra)",
        "inter_dice": "Dice of two labels by two raters (inter)",
        "boundary_sd": f"boundary SD over all labels ({results.unit})",
        "within_rater_sd": f"boundary SD within a rater ({results.unit})",
        "between_rater_sd": f"boundary SD between raters, without that within ({results.unit})",
        "entropy": "entropy, mean over insonified pixels (nats)",
    }
    lines = []
    for key, title in titles.items():
        values = results.rater_values(key).dropna()
        cells = (values.mean(), values.std(), values.min(), values.max())
        lines.append([Cell(title), *(Cell(_number(value)) for value in cells), Cell(str(len(values)))])
    return ReportTable(
        "raters",
        "Rater variability",
        "Statistics over patients. The Dice is the mean over classes. All boundary SDs are roots of the mean variance "
        "along the boundaries. Variability within raters and between raters is reported separately.",
        ["", "mean", "SD", "lowest", "highest", "patients"],
        lines,
    )


def agreement_table(results: Variability) -> ReportTable:
    """Create a table of the agreement of MC-dropout samples with labels.

    Args:
        results: Measurements.

    Returns:
        The table; the value closest to the ideal is bold.
    """
    values = {name: results.values(name) for name in MEASURES}
    closeness = {name: _closeness(table, MEASURES[name].target).mean() for name, table in values.items()}
    lines = []
    for model in results.models:
        line = [Cell(model)]
        for name, table in values.items():
            is_best = MEASURES[name].target is not None and bool(closeness[name][model] == closeness[name].max())
            line.append(Cell(f"{_number(table[model].mean())} ± {_number(table[model].std())}", is_best))
        lines.append(line)
    return ReportTable(
        "agreement",
        "Agreement of MC-dropout samples and labels",
        "Mean ± SD over patients. NCC and Spearman: correlation of the entropy (or mutual information) of the "
        "samples with the entropy of the labels. Diversity ratio: mean distance (1 - IoU) of two samples divided by "
        "that of two labels, ideally 1; slope and ratio of the boundary SD: likewise. GED²: squared generalised energy "
        "distance with its terms. The unbiased one does not compare segmentations with themselves, and is 0 on average "
        "for equal distributions; the biased one, which is common in publications, does, and is larger by an amount "
        "that depends on the numbers of samples and labels. Brier score, Kullback-Leibler divergence and ECE: mean "
        "probabilities compared with the distribution of the labels; the ECE by chance is the 97.5th percentile for "
        "a perfectly calibrated network with independent pixels. Areas are relative to the mean labelled area. The "
        "value closest to the ideal is bold.",
        ["model", *(measure.title for measure in MEASURES.values())],
        lines,
    )


def predictor_table(results: Variability, event: Literal["disagreement", "error"]) -> ReportTable:
    """Create a table of scores that detect pixels on which labels disagree, or that are wrong.

    Args:
        results: Measurements.
        event: ``disagreement`` of labels, or ``error`` of the network.

    Returns:
        The table.
    """
    prefix = f"{event}_auroc/"
    names = [name for name in dict.fromkeys(results.measures["measure"]) if name.startswith(prefix)]
    names = [name for name in names if results.values(name).notna().any(axis=None)]
    tables = {name: results.values(name) for name in names}
    lines = []
    for name, table in tables.items():
        line = [Cell(name.removeprefix(prefix))]
        for model in results.models:
            values = table[model].dropna().to_numpy()
            highest = max(scores[model].mean() for scores in tables.values())
            line.append(Cell(f"{_number(values.mean())} ({_interval(values)})", bool(values.mean() == highest)))
        lines.append(line)
    pixels = {
        "disagreement": "pixels on which fewer than 90 % of the labels agree",
        "error": "pixels that the mean prediction classifies wrongly",
    }[event]
    return ReportTable(
        f"predictors_of_{event}",
        f"Detection of {event}",
        f"Area under the ROC curve for {pixels}, near boundaries; 0.5 is chance. Mean over patients with 95 % "
        "confidence interval (bootstrap over patients). Depth alone and distance to the predicted boundary alone are "
        "the reference for all other scores.",
        ["score", *results.models],
        lines,
    )


def uncertainty_table(results: Variability) -> ReportTable:
    """Create a table of the correlation of confidence with predictive uncertainty and error.

    Args:
        results: Measurements.

    Returns:
        The table.
    """
    titles = {
        "entropy_confidence": "entropy, not adjusted",
        "entropy_confidence_given": "entropy, adjusted",
        "error_confidence": "error, not adjusted",
        "error_confidence_given": "error, adjusted",
    }
    lines = []
    for model in results.models:
        for key, title in titles.items():
            values = of_model(results.by_seed(key), model)
            tested = values.dropna()
            if len(tested) < 2:
                lines.append([Cell(model), Cell(title), *_tested(tested.mean(axis=1).to_numpy()), Cell("-")])
                continue
            result = zero_test(values, common_folds(results.folds, [model], values.index))
            interval = f"{_number(result.low)} to {_number(result.high)}"
            numbers = (_number(result.difference), interval, f"{result.p:.2g}", str(result.participants))
            lines.append([Cell(model), Cell(title), *map(Cell, numbers), Cell(SCOPES[result.scope])])
    return ReportTable(
        "doubt",
        "Confidence, predictive uncertainty and error",
        "Rank correlation of the confidence map of the image with the entropy of the mean of the MC-dropout samples "
        "and with the error of the mean prediction, near boundaries; negative if entropy or error is larger where "
        "confidence is low. It is adjusted for depth, for class and orientation of the nearest predicted boundary, and "
        "for the distance to it. With several seeds, estimate, interval and p cover patients and training runs (fold "
        f"and seed); with one seed, they are those of the signed-rank test and {CONDITIONAL}.",
        ["model", "with", "correlation", "95 % CI", "p", "patients", "covers"],
        lines,
    )


def comparison_tables(
    results: Variability, comparisons: Sequence[Comparison], family: Family = "table"
) -> list[ReportTable]:
    """Create the tables of the planned comparisons over patients.

    Args:
        results: Measurements.
        comparisons: Planned comparisons.
        family: Comparisons over which Holm's correction is made.

    Returns:
        One table per measure. For a measure whose ideal value is 1, the absolute logarithm is compared.
    """
    quantities = []
    names = COMPARED_MEASURES if len(results.raters) else ("error_auroc/MC entropy", "ece")
    for name in names:
        measure = MEASURES.get(name, Measure(name.replace("_auroc/", ", AUROC of "), "high"))
        values = results.by_seed(name)
        title = measure.title
        if measure.target == "one":
            values, title = values.map(lambda value: abs(math.log(max(value, 1e-3)))), f"|log of {measure.title}|"
        file_name = name.replace("/", "_").replace(" ", "_")
        quantity = compare_quantity(file_name, title, values, comparisons, results.folds)
        if quantity is not None:
            quantities.append(quantity)
    return [comparison_table(quantity) for quantity in correct(quantities, family, {})]


def _tested(values: NDArray[np.float64]) -> list[Cell]:
    """Format the Hodges-Lehmann estimate, its interval, the p value of its test and the number of patients."""
    if len(values) < 2:
        return [Cell(_number(values.mean()) if len(values) else "-"), Cell("-"), Cell("-"), Cell(str(len(values)))]
    low, high = hodges_lehmann_interval(values)
    interval = f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "none with so few patients"
    cells = (_number(hodges_lehmann(values)), interval, f"{signed_rank_p(values):.2g}", str(len(values)))
    return [Cell(text) for text in cells]


def _interval(values: NDArray[np.floating[Any]]) -> str:
    return "{:.3f} to {:.3f}".format(*mean_interval(values)) if len(values) > 1 else "-"


def _closeness(values: Any, target: str | None) -> Any:
    """Transform values so that higher is closer to the ideal."""
    match target:
        case "high":
            return values
        case "one":
            return -np.abs(np.log(np.maximum(values, 1e-3)))
        case _:
            return -values


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
