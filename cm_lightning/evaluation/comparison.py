"""Planned comparisons of models over the same participants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cm_lightning.evaluation.statistics import FriedmanResult, PairedResult, compare_pairs, friedman
from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


class Comparison(NamedTuple):
    """A planned comparison of a model with its baseline."""

    model: str
    baseline: str


@dataclass(frozen=True)
class ComparedQuantity:
    """Results of the planned comparisons for one quantity.

    Attributes:
        name: Name of the quantity in file names.
        title: Name of the quantity in headings.
        results: Result of each comparison.
        overall: Friedman test over all compared models; None with fewer than three models, or fewer than two
            participants with values for all models.
    """

    name: str
    title: str
    results: dict[Comparison, PairedResult]
    overall: FriedmanResult | None


def participant_values(rows: pd.DataFrame, metric: str, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Average a metric per participant and model, first over the scans of each class, then over classes.

    Args:
        rows: Long table with one row per model, case, class and metric.
        metric: Name of the metric.
        policy: Treatment of empty masks.

    Returns:
        Values with one row per participant and one column per model, in the order of ``rows``; NaN if a model was not
        tested on a participant.
    """
    scored = apply_empty_policy(rows[rows["metric"] == metric], policy)
    by_class = scored.groupby(["model", "patient", "class"], sort=False)["value"].mean()
    table = by_class.groupby(["model", "patient"], sort=False).mean().unstack("model")
    return table.reindex(columns=list(dict.fromkeys(rows["model"])))


def compare_models(
    values: pd.DataFrame, comparisons: Sequence[Comparison], seed: int = 0
) -> dict[Comparison, PairedResult]:
    """Compare models with their baselines over the participants that both have values for.

    Args:
        values: Values with one row per participant and one column per model, as from :func:`participant_values`.
        comparisons: Planned comparisons. P values are corrected over all of them.
        seed: Seed of the bootstrap.

    Returns:
        Result of each comparison for which the two models have at least two participants in common.
    """
    planned: list[Comparison] = []
    pairs = []
    for model, baseline in comparisons:
        if model in values and baseline in values:
            common = values[[baseline, model]].dropna()
            if len(common) >= 2:
                planned.append(Comparison(model, baseline))
                pairs.append((common[baseline].to_numpy(), common[model].to_numpy()))
    return dict(zip(planned, compare_pairs(pairs, seed), strict=True))


def compare_quantity(
    name: str, title: str, values: pd.DataFrame, comparisons: Sequence[Comparison]
) -> ComparedQuantity | None:
    """Run the planned comparisons for one quantity.

    Args:
        name: Name of the quantity in file names.
        title: Name of the quantity in headings.
        values: Values with one row per participant and one column per model.
        comparisons: Planned comparisons.

    Returns:
        The results; None if no comparison is possible.
    """
    results = compare_models(values, comparisons)
    if not results:
        return None
    complete = values[list(dict.fromkeys(model for pair in results for model in pair))].dropna()
    can_test = complete.shape[1] >= 3 and len(complete) >= 2
    return ComparedQuantity(name, title, results, friedman(complete) if can_test else None)
