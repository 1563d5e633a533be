"""Tables of the report. All values are computed elsewhere."""

from collections.abc import Sequence

from cm_lightning.evaluation.alignment import Coverage
from cm_lightning.evaluation.report_table import Cell, ReportTable, format_number
from cm_lightning.evaluation.results import Results
from cm_lightning.metrics import METRICS


def overview_table(results: Results) -> ReportTable:
    """Create a table of all metrics of all models, mean over classes.

    Args:
        results: Values of the report. The asterisk refers to the first planned comparison of each model.

    Returns:
        The table. The best mean of each column is bold; an asterisk means p < 0.05 for the Hausdorff distance compared
        with the baseline (pairwise and uncorrected, as in the study). A metric that is not defined for all
        participants says for how many.
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
    tested = results.tested
    lines = []
    for model in dict.fromkeys(overall["model"]):
        line = [Cell(f"{model}{' *' * (model in marked)}")]
        for name in metrics:
            row = by_metric.get((model, name))
            if row is None:  # not stored by earlier versions, or undefined after post-processing
                line.append(Cell("-"))
                continue
            spread = "; ".join(format_number(row[key]) for key in ("sd_patients", "sd_folds", "sd_seeds"))
            scored = _scored(row["patients"], tested[model])
            line.append(Cell(f"{format_number(row['mean'])} ± ({spread}){scored}", bool(row["mean"] == best[name])))
        counts = next(by_metric[model, name] for name in metrics if (model, name) in by_metric)
        numbers = (counts["failures"], tested[model], counts["folds"], counts["seeds"])
        lines.append([*line, *(Cell(str(number)) for number in numbers)])
    headings = [METRICS[name].heading(results.unit) for name in metrics]
    return ReportTable(
        "overview",
        "All metrics, mean over classes",
        "Mean ± (SD over participants; SD over the means of folds; SD over seeds). A class that is missed or falsely "
        "predicted counts with the worst value of a metric; failures count these cases over all seeds. Islands, volume "
        "error and CSA error have no worst value and are means over the cases in which the class was found, in n "
        "participants where these are fewer than all; models with different n are not comparable. The SD over "
        "folds describes the stability of training rather than the variability between participants: a single failed "
        "fold of three (Dice 0.855, 0.855 and 0) gives the 0.57 ± 0.49 in Table 1 of the study. The best mean is bold. "
        "* p < 0.05 for HD compared with the baseline (uncorrected, as in the study; the p of the comparison below).",
        ["model", *headings, "failures", "participants", "folds", "seeds"],
        lines,
    )


def level_table(results: Results, by: str) -> ReportTable | None:
    """Create a table of the error of each model by tenths of confidence or of depth.

    Args:
        results: Values of the report.
        by: ``confidence`` or ``depth``.

    Returns:
        The table; None if the errors were not measured.
    """
    profile = results.profiles.get(by)
    if profile is None:
        return None
    return ReportTable(
        f"error_by_{by}",
        f"Error by {by}",
        "Fraction of predicted or labelled voxels that are wrong; mean over participants with such voxels. "
        + (
            "Confidence is that of the image, also for networks with a control channel."
            if by == "confidence"
            else "Depth is relative to the insonified rows, and 0 at the probe."
        ),
        ["model", *(f"{level / 10:.1f} to {(level + 1) / 10:.1f}" for level in profile.columns.to_numpy())],
        [[Cell(str(model)), *(Cell(format_number(error)) for error in errors)] for model, errors in profile.iterrows()],
    )


def calibration_table(results: Results) -> ReportTable | None:
    """Create a table of the calibration of each model, with and without temperature scaling.

    Args:
        results: Values of the report.

    Returns:
        The table; None if calibration was not measured.
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
        "Mean ± SD over participants; mean over classes, each against the rest, over insonified voxels at file "
        "resolution in 20 bins of probability. The ECE is the mean difference between predicted probability and "
        "observed frequency over voxels, most of which are background; the ACE is the mean over bins and gives more "
        "weight to boundaries; the Brier score is the mean squared error of the probability. The ECE by chance is the "
        "97.5th percentile of the mean ECE of a perfectly calibrated model with independent voxels. Temperature "
        "scaling does not change segmentations.",
        ["model", "scaling", *(METRICS[name].title for name in names), "ECE by chance", "participants"],
        lines,
    )


def settings_table(results: Results) -> ReportTable | None:
    """Create a table of the settings that differ between models.

    Args:
        results: Values of the report.

    Returns:
        The table; None with one model or without stored configurations.
    """
    differing = results.differing_settings
    if differing.empty:
        return None
    names = [str(key).removeprefix("model.init_args.") for key in differing]
    return ReportTable(
        "settings",
        "Settings that differ between models",
        "All settings are stored in the file config.yaml in the folder of each fold.",
        ["model", *names],
        [[Cell(str(model)), *(Cell(str(value)) for value in values)] for model, values in differing.iterrows()],
    )


def class_table(results: Results) -> ReportTable:
    """Create a table of the main metrics of each class and model.

    Args:
        results: Values of the report.

    Returns:
        The table. The mean DSC is given twice: with the worst value for missed or falsely predicted classes, and over
        the participants in which the class was found.
    """
    rows = results.runs.rows
    summary_rows = {
        policy: {(row["model"], row["class"], row["metric"]): row for row in table.to_dict("records")}
        for policy, table in results.summaries.items()
    }
    shown = ("dice", "asd", "hd", "hd95", "islands", "volume_error", "ece", "brier")
    names = [name for name in shown if name in set(rows["metric"])]
    lines = []
    for model, name in dict.fromkeys(zip(rows["model"], rows["class"], strict=True)):
        line = [Cell(model), Cell(name)]
        for metric in names:
            worst = summary_rows["worst"].get((model, name, metric))
            text = "-"
            if worst is not None:
                text = f"{format_number(worst['mean'])} ± {format_number(worst['sd_patients'])}"
                text += _scored(worst["patients"], results.tested[model])
            line.append(Cell(text))
        key = (model, name, "dice")
        detected = summary_rows["detected"].get(key)
        line.append(Cell("-" if detected is None else f"{format_number(detected['mean'])} (n {detected['patients']})"))
        lines.append(
            [*line, Cell(str(summary_rows["worst"][key]["failures"]) if key in summary_rows["worst"] else "-")]
        )
    headings = [METRICS[name].heading(results.unit) for name in names]
    return ReportTable(
        "classes",
        "Results per class",
        "Mean ± SD over participants; n is the number of participants in which a metric is defined, if these are fewer "
        "than all. The DSC is also given for the participants in which the class was found.",
        ["model", "class", *headings, "DSC where found", "failures"],
        lines,
    )


def alignment_table(left_out: Sequence[Coverage]) -> ReportTable | None:
    """Create a table of the cases and classes that only some models have, and that are left out.

    Args:
        left_out: Models that were tested on further cases or classes.

    Returns:
        The table; None if all models were tested on the same cases and classes.
    """
    if not left_out:
        return None
    return ReportTable(
        "alignment",
        "Cases and classes that were left out",
        "Only cases and classes on which all models were tested are used on this page, since means over different "
        "cases or classes cannot be compared. The models below were tested on others, too.",
        ["model", "seed", "cases used", "cases tested", "classes left out"],
        [
            [
                Cell(item.model),
                Cell(str(item.seed)),
                Cell(str(item.used_cases)),
                Cell(str(item.cases)),
                Cell(", ".join(item.left_out_classes) or "-"),
            ]
            for item in left_out
        ],
    )


def problem_table(problems: Sequence[tuple[str, str]]) -> ReportTable | None:
    """Create a table of the experiments that were left out.

    Args:
        problems: Folder of each experiment and the reason.

    Returns:
        The table; None if no experiment was left out.
    """
    if not problems:
        return None
    lines = [[Cell(folder), Cell(reason)] for folder, reason in problems]
    return ReportTable(
        "left_out",
        "Experiments that were left out",
        "Their results could not be read or pooled.",
        ["folder", "reason"],
        lines,
    )


def _scored(patients: int, tested: int) -> str:
    """Return the number of participants with a value if it is smaller than that of all."""
    return f" (n {patients})" if patients < tested else ""
