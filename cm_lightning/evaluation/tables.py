"""The report's tables, each as HTML, Markdown, LaTeX and CSV from one content."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from cm_lightning.evaluation.comparison import compare_models, participant_values
from cm_lightning.evaluation.pooling import summarise_folds
from cm_lightning.evaluation.published import PUBLISHED, PUBLISHED_METRICS, setting_of
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


def overview_table(rows: pd.DataFrame, baselines: Mapping[str, str]) -> ReportTable:
    """All metrics of all models, mean over classes: SD over participants and over folds kept apart.

    Args:
        rows: Long table of all models.
        baselines: Model to baseline, for the study's mark.

    Returns:
        The table; the best mean of a column is bold, and * marks p < 0.05 on the Hausdorff distance against the
        baseline (pairwise, uncorrected: the study's rule).
    """
    summary = summarise_folds(rows)
    overall = summary[summary["class"] == "mean"]
    marked = {model for model, result in compare_models(rows, "hd", baselines).items() if result.p < 0.05}
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
            row = found[model, name]
            spread = f"{_number(row['sd_patients'])}; {_number(row['sd_folds'])}"
            line.append(Cell(f"{_number(row['mean'])} ± ({spread})", bool(row["mean"] == best[name])))
        counts = found[model, metrics[0]]
        lines.append([*line, *(Cell(str(counts[name])) for name in ("failures", "patients", "folds"))])
    unit = rows["unit"].iloc[0]
    headings = [METRICS[name].heading(unit) for name in metrics]
    return ReportTable(
        "overview",
        "All metrics, mean over classes",
        "Mean ± (SD over participants; SD over folds). A lost or invented class counts with its worst value; failures "
        "are how often that happened. The best mean is bold. * p < 0.05 on HD against the baseline (pairwise signed "
        "ranks, uncorrected: the study's rule).",
        ["model", *headings, "failures", "participants", "folds"],
        lines,
    )


def published_table(rows: pd.DataFrame) -> ReportTable | None:
    """The study's Table 1 with its values beside ours.

    Args:
        rows: Long table of all models.

    Returns:
        The table; None where no model is one of the study's rows.
    """
    summary = summarise_folds(rows)
    overall = summary[summary["class"] == "mean"].set_index(["model", "metric"])
    lines = []
    for model in dict.fromkeys(rows["model"]):
        published = PUBLISHED.get(setting_of(model))
        if published is None:
            continue
        line = [Cell(model)]
        for name in PUBLISHED_METRICS:
            own, theirs = overall.loc[(model, name)], published[name]
            line += [
                Cell(f"{_number(own['mean'])} ± {_number(own['sd_folds'])}"),
                Cell(f"{theirs.mean:.2f} ± {theirs.sd:.2f}"),
            ]
        lines.append(line)
    if not lines:
        return None
    headings = [f"{METRICS[name].title}, {whose}" for name in PUBLISHED_METRICS for whose in ("ours", "published")]
    return ReportTable(
        "published",
        "Beside the study's Table 1",
        "Mean ± SD over folds, as the study prints it, for its own data (muscles). With three folds, one that failed "
        "moves the mean by a third and makes an SD of half the value: folds of 0.855, 0.855 and 0 are 0.57 ± 0.49.",
        ["model", *headings],
        lines,
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
    names = ("dice", "asd", "hd", "hd95", "islands", "volume_error")
    lines = []
    for model, name in dict.fromkeys(zip(rows["model"], rows["class"], strict=True)):
        line = [Cell(model), Cell(name)]
        for metric in names:
            worst = by["worst"][model, name, metric]
            line.append(Cell(f"{_number(worst['mean'])} ± {_number(worst['sd_patients'])}"))
        key = (model, name, "dice")
        detected = by["detected"].get(key)
        line.append(Cell("-" if detected is None else f"{_number(detected['mean'])} (n {detected['patients']})"))
        lines.append([*line, Cell(str(by["worst"][key]["failures"]))])
    unit = rows["unit"].iloc[0]
    headings = [METRICS[name].heading(unit) for name in names]
    return ReportTable(
        "classes",
        "Every class",
        "Mean ± SD over participants; DSC also over those alone in which the class was found.",
        ["model", "class", *headings, "DSC where found", "failures"],
        lines,
    )


def comparison_table(rows: pd.DataFrame, metric: str, baselines: Mapping[str, str]) -> ReportTable | None:
    """Planned comparisons with the baselines, and whether the models differ at all.

    Args:
        rows: Long table of all models.
        metric: Which metric.
        baselines: Model to baseline.

    Returns:
        The table; None where nothing can be compared.
    """
    results = compare_models(rows, metric, baselines)
    if not results:
        return None
    complete = participant_values(rows, metric).dropna()
    note = ""
    if complete.shape[1] >= 3 and len(complete) >= 2:
        overall = friedman(complete)
        note = (
            f"Friedman over {overall.models} models and {overall.participants} participants: chi-square "
            f"{overall.statistic:.2f}, p {_p(overall.p)} (permutations within participants: "
            f"{_p(overall.permutation_p)}), Kendall's W {overall.kendall_w:.2f}. "
        )
    smallest = max(result.smallest_p for result in results.values())
    note += (
        "Differences are modified less baseline; exact signed ranks; intervals (BCa bootstrap over participants) are "
        f"exploratory. With so few participants no p-value below {_p(smallest)} is possible, and the last column is "
        "the difference that would have been found with a power of 80 %: smaller ones mostly could not."
    )
    lines = [
        [
            Cell(model),
            Cell(baselines[model]),
            Cell(str(result.participants)),
            Cell(_number(result.difference, sign=True)),
            Cell(f"{_number(result.low, sign=True)} to {_number(result.high, sign=True)}"),
            Cell(f"{result.rank_biserial:+.2f}"),
            Cell(_p(result.p)),
            Cell(_p(result.holm_p), result.holm_p < 0.05),
            Cell(_number(result.detectable)),
        ]
        for model, result in results.items()
    ]
    title = METRICS[metric].heading(rows["unit"].iloc[0])
    return ReportTable(
        f"comparison_{metric}",
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


def _number(value: float, sign: bool = False) -> str:
    """Three digits after the point for shares, fewer for larger numbers."""
    if math.isnan(value):
        return "-"
    digits = 3 if abs(value) < 10 else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
