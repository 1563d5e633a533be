"""The report's tables: what they say about the numbers, and nothing that is computed."""

from collections.abc import Sequence

from cm_lightning.evaluation.comparison import ComparedQuantity
from cm_lightning.evaluation.report_table import Cell, ReportTable, format_number, format_p
from cm_lightning.evaluation.results import Results
from cm_lightning.metrics import METRICS


def overview_table(results: Results) -> ReportTable:
    """All metrics of all models, mean over classes: SD over participants and over folds kept apart.

    Args:
        results: The numbers; of each model, the first planned comparison counts for the study's mark.

    Returns:
        The table; the best mean of a column is bold, and * marks p < 0.05 on the Hausdorff distance against the
        baseline (pairwise, uncorrected: the study's rule).
    """
    summary = results.summaries["worst"]
    overall = summary[summary["class"] == "mean"]
    hausdorff = results.quantities.get("hd")
    compared = {} if hausdorff is None else hausdorff.results
    first = {pair.model: result for pair, result in reversed(compared.items())}
    marked = {model for model, result in first.items() if result.p < 0.05}
    metrics = [name for name in METRICS if name in set(overall["metric"])]
    best = {}
    for name in metrics:
        means = overall[overall["metric"] == name].set_index("model")["mean"]
        best[name] = means.max() if METRICS[name].higher_is_better else means.min()
    by_metric = {(row["model"], row["metric"]): row for row in overall.to_dict("records")}
    lines = []
    for model in dict.fromkeys(overall["model"]):
        line = [Cell(f"{model}{' *' * (model in marked)}")]
        for name in metrics:
            row = by_metric.get((model, name))
            if row is None:  # a run of an earlier version, or post-processing, which has no probabilities
                line.append(Cell("-"))
                continue
            spread = "; ".join(format_number(row[key]) for key in ("sd_patients", "sd_folds", "sd_seeds"))
            line.append(Cell(f"{format_number(row['mean'])} ± ({spread})", bool(row["mean"] == best[name])))
        counts = next(by_metric[model, name] for name in metrics if (model, name) in by_metric)
        lines.append([*line, *(Cell(str(counts[name])) for name in ("failures", "patients", "folds", "seeds"))])
    headings = [METRICS[name].heading(results.unit) for name in metrics]
    return ReportTable(
        "overview",
        "All metrics, mean over classes",
        "Mean ± (SD over participants; SD over the folds' means; SD over seeds). A lost or invented class counts with "
        "its worst value; failures are how often that happened, over all seeds. The SD over folds says how stable "
        "training is, not how much participants differ: with three folds, one that fails moves the mean by a third, "
        "and folds of 0.855, 0.855 and 0 are the 0.57 ± 0.49 of the study's Table 1. The best mean is bold. * p < 0.05 "
        "on HD against the baseline (pairwise signed ranks, uncorrected: the study's rule).",
        ["model", *headings, "failures", "participants", "folds", "seeds"],
        lines,
    )


def level_table(results: Results, by: str) -> ReportTable | None:
    """Error of every model by tenths of confidence or of depth.

    Args:
        results: The numbers.
        by: ``confidence`` or ``depth``.

    Returns:
        The table; None where it was not measured.
    """
    profile = results.profiles.get(by)
    if profile is None:
        return None
    return ReportTable(
        f"error_by_{by}",
        f"Error by {by}",
        "Share of the voxels in prediction or label that are wrong, mean over the participants that have any there. "
        + ("Of the image's own map, also where a network saw a control." if by == "confidence" else "0 is the probe."),
        ["model", *(f"{level / 10:.1f} to {(level + 1) / 10:.1f}" for level in profile.columns.to_numpy())],
        [[Cell(str(model)), *(Cell(format_number(error)) for error in errors)] for model, errors in profile.iterrows()],
    )


def calibration_table(results: Results) -> ReportTable | None:
    """Calibration of every model, with and without its temperature.

    Args:
        results: The numbers.

    Returns:
        The table; None where it was not measured.
    """
    if results.calibration is None:
        return None
    measured, chance = results.calibration.participants, results.calibration.chance
    names = ("ece", "ace", "brier")
    means = measured.groupby(["model", "calibration"]).mean()
    lines = []
    rows = results.runs.calibration
    for model, scaling in dict.fromkeys(zip(rows["model"], rows["calibration"], strict=True)):
        values = measured.loc[(model, scaling)]
        line = [Cell(model), Cell("-" if scaling == "none" else scaling)]
        for name in names:
            mean = means.loc[(model, scaling), name]
            text = f"{format_number(mean, digits=4)} ± {format_number(values[name].std(), digits=4)}"
            line.append(Cell(text, bool(mean == means[name].min())))
        lines.append([*line, Cell(format_number(chance[model, scaling], digits=5)), Cell(str(len(values)))])
    return ReportTable(
        "calibration",
        "Calibration",
        "Mean ± SD over participants, of the mean over classes, each against the rest, over insonified voxels at file "
        "resolution in 20 bins of probability. ECE is the distance between stated probability and frequency, mean over "
        "voxels, most of them background; ACE the mean over bins, in which boundaries weigh more; Brier the squared "
        "error of the probability. The mean ECE of a perfectly calibrated model is not 0: with independent voxels it "
        "is below the ECE by chance 39 times of 40 (97.5th percentile). After scaling with the temperature, "
        "segmentations are the same.",
        ["model", "scaling", *(METRICS[name].title for name in names), "ECE by chance", "participants"],
        lines,
    )


def settings_table(results: Results) -> ReportTable | None:
    """What distinguishes the models' configurations.

    Args:
        results: The numbers.

    Returns:
        The table; None where there is one model, or configurations were not kept.
    """
    differing = results.differing_settings
    if differing.empty:
        return None
    names = [str(key).removeprefix("model.init_args.") for key in differing]
    return ReportTable(
        "settings",
        "What differs between the models",
        "Settings that are not the same in all models; the rest is in the configurations at the end.",
        ["model", *names],
        [[Cell(str(model)), *(Cell(str(value)) for value in values)] for model, values in differing.iterrows()],
    )


def class_table(results: Results) -> ReportTable:
    """Every class of every model: the metrics that a reader asks for first.

    Args:
        results: The numbers.

    Returns:
        The table, with means under both policies of empty masks.
    """
    rows = results.runs.rows
    by = {
        policy: {(row["model"], row["class"], row["metric"]): row for row in table.to_dict("records")}
        for policy, table in results.summaries.items()
    }
    shown = ("dice", "asd", "hd", "hd95", "islands", "volume_error", "ece", "brier")
    names = [name for name in shown if name in set(rows["metric"])]
    lines = []
    for model, name in dict.fromkeys(zip(rows["model"], rows["class"], strict=True)):
        line = [Cell(model), Cell(name)]
        for metric in names:
            worst = by["worst"].get((model, name, metric))
            line.append(
                Cell(
                    "-" if worst is None else f"{format_number(worst['mean'])} ± {format_number(worst['sd_patients'])}"
                )
            )
        key = (model, name, "dice")
        detected = by["detected"].get(key)
        line.append(Cell("-" if detected is None else f"{format_number(detected['mean'])} (n {detected['patients']})"))
        lines.append([*line, Cell(str(by["worst"][key]["failures"]) if key in by["worst"] else "-")])
    headings = [METRICS[name].heading(results.unit) for name in names]
    return ReportTable(
        "classes",
        "Every class",
        "Mean ± SD over participants; DSC also over those alone in which the class was found.",
        ["model", "class", *headings, "DSC where found", "failures"],
        lines,
    )


def comparison_table(quantity: ComparedQuantity) -> ReportTable:
    """Planned comparisons with the baselines, and whether the models differ at all.

    Args:
        quantity: What is compared, with the results.

    Returns:
        The table.
    """
    results, overall, note = quantity.results, quantity.overall, ""
    if overall is not None:
        note = (
            f"Friedman over {overall.models} models and {overall.participants} participants: chi-square "
            f"{overall.statistic:.2f}, p {format_p(overall.p)} (permutations within participants: "
            f"{format_p(overall.permutation_p)}), Kendall's W {overall.kendall_w:.2f}. "
        )
    smallest = max(result.smallest_p for result in results.values())
    participants = min(result.participants for result in results.values())
    note += (
        "Differences are modified less baseline; exact signed ranks; intervals (BCa bootstrap over participants) are "
        f"exploratory. With {participants} participants no p-value below {format_p(smallest)} is possible. The last "
        "column is the difference that would have been found with a power of 80 %: smaller ones mostly could not."
    )
    lines = [
        [
            Cell(pair.model),
            Cell(pair.baseline),
            Cell(str(result.participants)),
            Cell(format_number(result.difference, sign=True)),
            Cell(f"{format_number(result.low, sign=True)} to {format_number(result.high, sign=True)}"),
            Cell(f"{result.rank_biserial:+.2f}"),
            Cell(format_p(result.p)),
            Cell(format_p(result.holm_p), result.holm_p < 0.05),
            Cell(format_number(result.detectable)),
        ]
        for pair, result in results.items()
    ]
    return ReportTable(
        f"comparison_{quantity.name}",
        f"Against the baseline: {quantity.title}",
        note,
        [
            "model",
            "baseline",
            "n",
            "difference (Hodges-Lehmann)",
            "95 % of the mean difference",
            "rank-biserial",
            "p",
            "p, Holm",
            "detectable",
        ],
        lines,
    )


def problem_table(problems: Sequence[tuple[str, str]]) -> ReportTable | None:
    """What was left out, and why.

    Args:
        problems: Folder and reason.

    Returns:
        The table; None where nothing was.
    """
    if not problems:
        return None
    lines = [[Cell(folder), Cell(reason)] for folder, reason in problems]
    return ReportTable("left_out", "Left out", "These could not be read or pooled.", ["folder", "reason"], lines)
