"""The report's tables, each as HTML, Markdown, LaTeX and CSV from one content."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from cm_lightning.evaluation.calibration import chance_calibration, participant_calibration
from cm_lightning.evaluation.comparison import Comparison, compare_models, participant_values
from cm_lightning.evaluation.levels import error_profile, participant_errors, regions
from cm_lightning.evaluation.pooling import summarise_folds
from cm_lightning.evaluation.published import (
    PUBLISHED,
    PUBLISHED_METRICS,
    SUPPLEMENT,
    SUPPLEMENT_METRICS,
    Published,
    setting_of,
)
from cm_lightning.evaluation.runs import Runs, differing_settings
from cm_lightning.evaluation.statistics import friedman
from cm_lightning.metrics import METRICS

LATEX_SPECIAL = str.maketrans({c: rf"\{c}" for c in "&%$#_{}"} | {"±": r"$\pm$", "²": r"$^2$"})


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        best: Whether it is the best of its column, shown in bold.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Attributes:
        name: Its file's name.
        title: Its heading.
        note: What a reader has to know.
        columns: Headings of the columns.
        rows: Cells, row by row.
    """

    name: str
    title: str
    note: str
    columns: list[str]
    rows: list[list[Cell]]

    def to_html(self) -> str:
        """Write the table as HTML."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{'<b>' * c.best}{escape(c.text)}{'</b>' * c.best}</td>" for c in row) + "</tr>\n"
            for row in self.rows
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    def to_markdown(self) -> str:
        """Write the table as Markdown, with its title and note."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in self.rows]
        grid = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{grid}\n"

    def to_latex(self) -> str:
        """Write the table as a LaTeX ``tabular``."""

        def text(cell: Cell) -> str:
            plain = cell.text.translate(LATEX_SPECIAL)
            return rf"\textbf{{{plain}}}" if cell.best else plain

        lines = [" & ".join(column.translate(LATEX_SPECIAL) for column in self.columns) + r" \\ \hline"]
        lines += [" & ".join(text(cell) for cell in row) + r" \\" for row in self.rows]
        head = rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}} \hline"
        return "\n".join([head, *lines, r"\hline \end{tabular}", ""])

    def to_csv(self) -> str:
        """Write the table as comma-separated values."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([cell.text for cell in row] for row in self.rows)
        return file.getvalue()


def overview_table(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> ReportTable:
    """All metrics of all models, mean over classes: SD over participants and over folds kept apart.

    Args:
        rows: Long table of all models.
        comparisons: Those that were planned, for the study's mark; of each model, the first counts.

    Returns:
        The table; the best mean of a column is bold, and * marks p < 0.05 on the Hausdorff distance against the
        baseline (pairwise, uncorrected: the study's rule).
    """
    summary = summarise_folds(rows)
    overall = summary[summary["class"] == "mean"]
    compared = compare_models(participant_values(rows, "hd"), comparisons)
    first = {pair.model: result for pair, result in reversed(compared.items())}
    marked = {model for model, result in first.items() if result.p < 0.05}
    metrics = [name for name in METRICS if name in set(overall["metric"])]
    best = {}
    for name in metrics:
        means = overall[overall["metric"] == name].set_index("model")["mean"]
        best[name] = means.max() if METRICS[name].higher_is_better else means.min()
    found = {(row["model"], row["metric"]): row for row in overall.to_dict("records")}
    lines = []
    for model in dict.fromkeys(overall["model"]):
        line = [Cell(f"{model}{' *' * (model in marked)}")]
        for name in metrics:
            row = found.get((model, name))
            if row is None:  # a run of an earlier version, or post-processing, which has no probabilities
                line.append(Cell("-"))
                continue
            spread = f"{_number(row['sd_patients'])}; {_number(row['sd_folds'])}; {_number(row['sd_seeds'])}"
            line.append(Cell(f"{_number(row['mean'])} ± ({spread})", bool(row["mean"] == best[name])))
        counts = next(found[model, name] for name in metrics if (model, name) in found)
        lines.append([*line, *(Cell(str(counts[name])) for name in ("failures", "patients", "folds", "seeds"))])
    unit = rows["unit"].iloc[0]
    headings = [METRICS[name].heading(unit) for name in metrics]
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


def published_table(rows: pd.DataFrame) -> ReportTable | None:
    """The study's Table 1 with its values beside ours.

    Args:
        rows: Long table of all models.

    Returns:
        The table; None where no model is one of the study's rows.
    """
    lines = _beside_published(rows, PUBLISHED, PUBLISHED_METRICS)
    if not lines:
        return None
    return ReportTable(
        "published",
        "Beside the study's Table 1",
        "Mean ± SD over folds, as the study prints it, for its own data (muscles).",
        ["model", *_headings_beside(PUBLISHED_METRICS)],
        lines,
    )


def supplement_table(rows: pd.DataFrame) -> ReportTable | None:
    """The study's supplementary table of alpha and beta with its values beside ours.

    Args:
        rows: Long table of all models.

    Returns:
        The table; None where fewer than two models are of its rows, so that no parameter was varied.
    """
    lines = _beside_published(rows, SUPPLEMENT, SUPPLEMENT_METRICS)
    if len(lines) < 2:
        return None
    return ReportTable(
        "supplement",
        "Beside the study's supplement: alpha and beta of the maps",
        "Mean ± SD over folds. The model's name says beta and alpha where they are not 100 and 0.5.",
        ["model", *_headings_beside(SUPPLEMENT_METRICS)],
        lines,
    )


def claims_table(runs: Runs) -> ReportTable:
    """A number for each of the study's claims on segmentation.

    Args:
        runs: All models.

    Returns:
        The table: spread of the DSC, islands, errors where confidence is low and high and where it is deep, and how
        soon training converged.
    """
    dice = participant_values(runs.rows, "dice")
    islands = participant_values(runs.rows, "islands")
    where = regions(runs.levels).values() if len(runs.levels) else []
    errors = [participant_errors(runs.levels, within) for _, within in where] or [pd.DataFrame()] * 3
    lines = []
    for model in runs.models:
        epochs = [_epochs_to_converge(curve) for curve in runs.learning_curves(model)] if model in runs.folders else []
        lines.append(
            [
                Cell(model),
                Cell(_number(dice[model].std())),
                Cell(_number(islands[model].mean())),
                *(Cell(_number(table[model].mean()) if model in table else "-") for table in errors),
                Cell(f"{sum(epochs) / len(epochs):.1f}" if epochs else "-"),
            ]
        )
    return ReportTable(
        "claims",
        "The study's claims, in numbers",
        "Maps are said to lower the SD of DSC over participants, to leave fewer islands, to make deep regions better "
        "and errors fewer where confidence is high, and not to slow training. An error is the share of the voxels in "
        "prediction or label that are wrong; low confidence is below 0.3 and high from 0.7 of the image's own map, "
        "also where a network saw a control; deep are the levels of depth at which the deepest three tenths of a "
        "participant's labels lie. Epochs are those "
        "until 95 % of the best validation DSC, a mean over folds and seeds. Whether maps make variability like the "
        "expert's needs repeated labels and is not measured here.",
        [
            "model",
            "SD of DSC",
            "islands",
            "error, low confidence",
            "error, high confidence",
            "error, deep",
            "epochs to 95 %",
        ],
        lines,
    )


def level_table(levels: pd.DataFrame, by: str) -> ReportTable | None:
    """Error of every model by tenths of confidence or of depth.

    Args:
        levels: Long table of counts of all models.
        by: ``confidence`` or ``depth``.

    Returns:
        The table; None where it was not measured.
    """
    if levels.empty or by not in set(levels["by"]):
        return None
    profile = error_profile(levels, by)
    return ReportTable(
        f"error_by_{by}",
        f"Error by {by}",
        "Share of the voxels in prediction or label that are wrong, mean over the participants that have any there. "
        + ("Of the image's own map, also where a network saw a control." if by == "confidence" else "0 is the probe."),
        ["model", *(f"{level / 10:.1f} to {(level + 1) / 10:.1f}" for level in profile.columns.to_numpy())],
        [[Cell(str(model)), *(Cell(_number(error)) for error in errors)] for model, errors in profile.iterrows()],
    )


def calibration_table(calibration: pd.DataFrame) -> ReportTable | None:
    """Calibration of every model, with and without its temperature.

    Args:
        calibration: Long table of sums by probability of all models.

    Returns:
        The table; None where it was not measured.
    """
    if calibration.empty:
        return None
    measured, chance = participant_calibration(calibration), chance_calibration(calibration)
    names = ("ece", "ace", "brier")
    means = measured.groupby(["model", "calibration"]).mean()
    lines = []
    for model, done in dict.fromkeys(zip(calibration["model"], calibration["calibration"], strict=True)):
        values = measured.loc[(model, done)]
        line = [Cell(model), Cell("-" if done == "none" else done)]
        for name in names:
            mean = means.loc[(model, done), name]
            text = f"{_number(mean, digits=4)} ± {_number(values[name].std(), digits=4)}"
            line.append(Cell(text, bool(mean == means[name].min())))
        lines.append([*line, Cell(_number(chance[model, done], digits=5)), Cell(str(len(values)))])
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


def settings_table(runs: Runs) -> ReportTable | None:
    """What distinguishes the models' configurations.

    Args:
        runs: All models.

    Returns:
        The table; None where there is one model, or configurations were not kept.
    """
    settings = {model: runs.settings(model) for model in runs.folders}
    if len(settings) < 2 or not all(settings.values()):
        return None
    differing = differing_settings(settings)
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


def class_table(rows: pd.DataFrame) -> ReportTable:
    """Every class of every model: the metrics that a reader asks for first.

    Args:
        rows: Long table of all models.

    Returns:
        The table, with means under both policies of empty masks.
    """
    tables = {policy: summarise_folds(rows, policy) for policy in ("worst", "detected")}
    by = {
        policy: {(row["model"], row["class"], row["metric"]): row for row in table.to_dict("records")}
        for policy, table in tables.items()
    }
    shown = ("dice", "asd", "hd", "hd95", "islands", "volume_error", "ece", "brier")
    names = [name for name in shown if name in set(rows["metric"])]
    lines = []
    for model, name in dict.fromkeys(zip(rows["model"], rows["class"], strict=True)):
        line = [Cell(model), Cell(name)]
        for metric in names:
            worst = by["worst"].get((model, name, metric))
            line.append(Cell("-" if worst is None else f"{_number(worst['mean'])} ± {_number(worst['sd_patients'])}"))
        key = (model, name, "dice")
        detected = by["detected"].get(key)
        line.append(Cell("-" if detected is None else f"{_number(detected['mean'])} (n {detected['patients']})"))
        lines.append([*line, Cell(str(by["worst"][key]["failures"]) if key in by["worst"] else "-")])
    unit = rows["unit"].iloc[0]
    headings = [METRICS[name].heading(unit) for name in names]
    return ReportTable(
        "classes",
        "Every class",
        "Mean ± SD over participants; DSC also over those alone in which the class was found.",
        ["model", "class", *headings, "DSC where found", "failures"],
        lines,
    )


def comparison_table(
    name: str, title: str, values: pd.DataFrame, comparisons: Sequence[Comparison]
) -> ReportTable | None:
    """Planned comparisons with the baselines, and whether the models differ at all.

    Args:
        name: What is compared, as a file's name.
        title: And as a heading.
        values: A row per participant, a column per model.
        comparisons: Those that were planned.

    Returns:
        The table; None where nothing can be compared.
    """
    results = compare_models(values, comparisons)
    if not results:
        return None
    complete = values[list(dict.fromkeys(model for pair in results for model in pair))].dropna()
    note = ""
    if complete.shape[1] >= 3 and len(complete) >= 2:
        overall = friedman(complete)
        note = (
            f"Friedman over {overall.models} models and {overall.participants} participants: chi-square "
            f"{overall.statistic:.2f}, p {_p(overall.p)} (permutations within participants: "
            f"{_p(overall.permutation_p)}), Kendall's W {overall.kendall_w:.2f}. "
        )
    smallest = max(result.smallest_p for result in results.values())
    participants = min(result.participants for result in results.values())
    note += (
        "Differences are modified less baseline; exact signed ranks; intervals (BCa bootstrap over participants) are "
        f"exploratory. With {participants} participants no p-value below {_p(smallest)} is possible. The last column "
        "is the difference that would have been found with a power of 80 %: smaller ones mostly could not."
    )
    lines = [
        [
            Cell(pair.model),
            Cell(pair.baseline),
            Cell(str(result.participants)),
            Cell(_number(result.difference, sign=True)),
            Cell(f"{_number(result.low, sign=True)} to {_number(result.high, sign=True)}"),
            Cell(f"{result.rank_biserial:+.2f}"),
            Cell(_p(result.p)),
            Cell(_p(result.holm_p), result.holm_p < 0.05),
            Cell(_number(result.detectable)),
        ]
        for pair, result in results.items()
    ]
    return ReportTable(
        f"comparison_{name}",
        f"Against the baseline: {title}",
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


def _beside_published(
    rows: pd.DataFrame, published: Mapping[str, Mapping[str, Published]], metrics: Sequence[str]
) -> list[list[Cell]]:
    """Give a line for every model that has published values."""
    summary = summarise_folds(rows)
    overall = summary[summary["class"] == "mean"].set_index(["model", "metric"])
    lines = []
    for model in dict.fromkeys(rows["model"]):
        of_the_study = published.get(setting_of(model))
        if of_the_study is None:
            continue
        line = [Cell(model)]
        for name in metrics:
            own, theirs = overall.loc[(model, name)], of_the_study[name]
            line += [
                Cell(f"{_number(own['mean'])} ± {_number(own['sd_folds'])}"),
                Cell(f"{theirs.mean:.2f} ± {theirs.sd:.2f}"),
            ]
        lines.append(line)
    return lines


def _headings_beside(metrics: Sequence[str]) -> list[str]:
    return [f"{METRICS[name].title}, {whose}" for name in metrics for whose in ("ours", "published")]


def _epochs_to_converge(curve: pd.Series) -> int:
    """Number of epochs until a validation curve first reaches 95 % of its best value."""
    return int((curve >= 0.95 * curve.max()).to_numpy().argmax()) + 1


def _number(value: float, sign: bool = False, digits: int = 3) -> str:
    """Three digits after the point for shares, fewer for larger numbers."""
    if math.isnan(value):
        return "-"
    digits = digits if abs(value) < 10 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
