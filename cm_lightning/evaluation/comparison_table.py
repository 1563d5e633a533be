"""Table of the planned comparisons of one quantity, with a note on what its numbers cover."""

import math

from cm_lightning.evaluation.comparison import ComparedQuantity
from cm_lightning.evaluation.paired import Scope
from cm_lightning.evaluation.report_table import Cell, ReportTable, format_number, format_p

CONDITIONAL = "conditional on these trained networks"
# Sources of variation that an estimate, its interval and its p value cover.
SCOPES: dict[Scope, str] = {"runs": "participants, training runs", "networks": "participants"}


def comparison_table(quantity: ComparedQuantity) -> ReportTable:
    """Create a table of the planned comparisons of one quantity, with the Friedman test in its note.

    Args:
        quantity: Results of the comparisons.

    Returns:
        The table.
    """
    results = quantity.results
    scopes = {result.scope for result in results.values()}
    lines = [
        [
            Cell(pair.model),
            Cell(pair.baseline),
            Cell(str(result.participants) + (f" ({result.left_out} left out)" if result.left_out else "")),
            Cell(format_number(result.difference, sign=True)),
            Cell(_interval(result.low, result.high)),
            Cell(format_p(result.p)),
            Cell(format_p(result.holm_p), result.holm_p < 0.05),
            Cell(result.verdict, result.verdict != "undecided"),
            Cell(SCOPES[result.scope]),
            Cell(format_number(result.detectable)),
            Cell(format_p(result.networks_p)),
            Cell(format_p(result.smallest_p)),
            Cell(f"{result.rank_biserial:+.2f} ({result.differing} pairs differ)"),
        ]
        for pair, result in results.items()
    ]
    conditional = f", {CONDITIONAL}" if scopes == {"networks"} else ""
    return ReportTable(
        f"comparison_{quantity.name}",
        f"Comparison with the baseline: {quantity.title}",
        comparison_note(quantity),
        [
            "model",
            "baseline",
            "n",
            "difference",
            "95 % CI",
            f"p{conditional}",
            f"p, Holm{conditional}",
            "verdict",
            "covers",
            "detectable",
            f"signed-rank p, {CONDITIONAL}",
            "smallest such p",
            "rank-biserial",
        ],
        lines,
    )


def comparison_note(quantity: ComparedQuantity) -> str:
    """Explain the tests of a table of comparisons: what they cover, their correction and their verdict.

    Args:
        quantity: Results of the comparisons.

    Returns:
        Sentences.
    """
    overall, sentences = quantity.overall, []
    if overall is not None:
        sentences.append(
            f"Friedman test over {overall.models} models and {overall.participants} participants, {CONDITIONAL}: "
            f"chi-square {overall.statistic:.2f}, p {format_p(overall.p)} (by permutation within participants: "
            f"{format_p(overall.permutation_p)}), Kendall's W {overall.kendall_w:.2f}."
        )
    sentences.append("Differences are model minus baseline.")
    scopes = {result.scope for result in quantity.results.values()}
    if "runs" in scopes:
        sentences.append(
            "With two or more seeds, the difference is the mean over participants and seeds; its interval and its p "
            "cover the variation between participants and between training runs (fold and seed), which are crossed "
            "random effects. The signed-rank p beside it takes the trained networks as fixed."
        )
    if "networks" in scopes:
        sentences.append(
            "With one seed, the difference is that of Hodges and Lehmann, with the interval that belongs to the exact "
            f"Wilcoxon signed-rank test. Both are {CONDITIONAL}: they cover the variation between participants, and "
            "not that between training runs, so that another training may give another result."
        )
    names = {
        "table": f"the {quantity.family_size} comparisons of this table",
        "page": (f"the {quantity.family_size} comparisons of all tables of this page"),
    }
    sentences.append(f"The family of Holm's correction is {names[quantity.family]}.")
    sentences.append(
        "Verdict: different if the corrected p is below 0.05"
        + (
            f"; equivalent if the 90 % confidence interval lies within ± {quantity.margin:g} (two one-sided tests at "
            "5 %, uncorrected), which has precedence"
            if quantity.margin is not None
            else "; equivalence is not tested without a margin (--margin)"
        )
        + "; undecided otherwise."
    )
    sentences.append(
        "Detectable is the mean difference that a t test with the same standard error detects with a power of 80 % at "
        "a two-sided level of 5 %. The smallest signed-rank p is that for the number of pairs that differ."
    )
    return " ".join(sentences)


def _interval(low: float, high: float) -> str:
    if math.isinf(low) or math.isinf(high):
        return "none with so few participants"
    return f"{format_number(low, sign=True)} to {format_number(high, sign=True)}"
