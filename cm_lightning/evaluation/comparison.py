"""Several models over the same participants: values, planned comparisons, failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cm_lightning.evaluation.statistics import FriedmanResult, PairedResult, compare_pairs, friedman
from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


class Comparison(NamedTuple):
    """A comparison that was planned: a modified model and its baseline."""

    model: str
    baseline: str


@dataclass(frozen=True)
class ComparedQuantity:
    """The planned comparisons of one quantity.

    Attributes:
        name: Of the quantity, as a file's name.
        title: And as a heading.
        results: A result for every comparison.
        overall: Whether the models of all comparisons differ at all; None with fewer than three models or two
            participants that all of them have a value of.
    """

    name: str
    title: str
    results: dict[Comparison, PairedResult]
    overall: FriedmanResult | None


def participant_values(rows: pd.DataFrame, metric: str, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Give every participant's value of every model: the mean over scans of each class, then over classes.

    Args:
        rows: Long table of one or several models.
        metric: Which metric.
        policy: What an empty mask is worth.

    Returns:
        A row per participant, a column per model, in the order of the rows; NaN where a model did not test a
        participant.
    """
    scored = apply_empty_policy(rows[rows["metric"] == metric], policy)
    by_class = scored.groupby(["model", "patient", "class"], sort=False)["value"].mean()
    table = by_class.groupby(["model", "patient"], sort=False).mean().unstack("model")
    return table.reindex(columns=list(dict.fromkeys(rows["model"])))


def compare_models(
    values: pd.DataFrame, comparisons: Sequence[Comparison], seed: int = 0
) -> dict[Comparison, PairedResult]:
    """Compare models with their baselines over the participants that both have a value of.

    Args:
        values: A row per participant, a column per model, as :func:`participant_values` gives it.
        comparisons: Those that were planned, corrected for together.
        seed: Of the bootstrap.

    Returns:
        A result for every comparison whose models have two participants in common.
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
    """Make the planned comparisons of a quantity.

    Args:
        name: Of the quantity, as a file's name.
        title: And as a heading.
        values: A row per participant, a column per model.
        comparisons: Those that were planned.

    Returns:
        The results; None where nothing can be compared.
    """
    results = compare_models(values, comparisons)
    if not results:
        return None
    complete = values[list(dict.fromkeys(model for pair in results for model in pair))].dropna()
    enough = complete.shape[1] >= 3 and len(complete) >= 2
    return ComparedQuantity(name, title, results, friedman(complete) if enough else None)
