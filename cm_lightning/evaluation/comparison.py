"""Planned comparisons of models over the same participants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import pandas as pd

from cm_lightning.evaluation.paired import PairedResult, compare_pair
from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy
from cm_lightning.statistics.friedman import FriedmanResult, friedman
from cm_lightning.statistics.verdicts import holm

# Comparisons over which Holm's correction is made: all of one table, or all of all tables of the page.
Family = Literal["table", "page"]
# Largest differences that do not matter, by quantity.
MARGINS = {"dice": 0.01}


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
        family: Comparisons over which Holm's correction was made.
        family_size: Their number.
        margin: Largest difference that does not matter; None if no margin was set.
    """

    name: str
    title: str
    results: dict[Comparison, PairedResult]
    overall: FriedmanResult | None
    family: Family = "table"
    family_size: int = 0
    margin: float | None = None


def seed_values(rows: pd.DataFrame, metric: str, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Average a metric per participant, model and seed, first over the scans of each class, then over classes.

    Args:
        rows: Long table with one row per model, seed, case, class and metric.
        metric: Name of the metric.
        policy: Treatment of empty masks.

    Returns:
        Values with one row per participant of the table and one column per model and seed, in the order of ``rows``;
        NaN if nothing was scored.
    """
    scored = apply_empty_policy(rows[rows["metric"] == metric], policy)
    by_class = scored.groupby(["model", "seed", "patient", "class"], sort=False)["value"].mean()
    table = by_class.groupby(["model", "seed", "patient"], sort=False).mean().unstack(["model", "seed"])
    runs = rows[["model", "seed"]].drop_duplicates()
    return table.reindex(index=rows["patient"].unique(), columns=pd.MultiIndex.from_frame(runs))


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Average values over the seeds of each model.

    Args:
        values: Values with one row per participant and one column per model and seed.

    Returns:
        Values with one row per participant and one column per model; NaN if no seed has a value.
    """
    models = list(dict.fromkeys(values.columns.get_level_values("model")))
    return values.T.groupby(level="model", sort=False).mean().T.reindex(columns=models)


def participant_folds(rows: pd.DataFrame) -> pd.DataFrame:
    """Find the fold in which each model and seed tested each participant.

    Args:
        rows: Long table with the columns ``model``, ``seed``, ``patient`` and ``fold``.

    Returns:
        Folds with one row per participant and one column per model and seed; NaN where it was not tested.
    """
    return rows.groupby(["model", "seed", "patient"], sort=False)["fold"].first().unstack(["model", "seed"])


def compare_models(
    values: pd.DataFrame, comparisons: Sequence[Comparison], folds: pd.DataFrame | None = None
) -> dict[Comparison, PairedResult]:
    """Compare models with their baselines over the participants that both have values for.

    Args:
        values: Values with one row per participant and one column per model and seed, as from :func:`seed_values`.
        comparisons: Planned comparisons.
        folds: Fold of every participant by model and seed; None if unknown, so that networks are taken as fixed.

    Returns:
        Result of each comparison for which the two models have at least two participants in common, not yet corrected.
    """
    results = {}
    models = set(values.columns.get_level_values("model"))
    for pair in comparisons:
        if pair.model in models and pair.baseline in models:
            baseline, model = (of_model(values, name) for name in (pair.baseline, pair.model))
            if (baseline.notna().any(axis=1) & model.notna().any(axis=1)).sum() >= 2:
                results[pair] = compare_pair(baseline, model, common_folds(folds, pair, values.index))
    return results


def compare_quantity(
    name: str,
    title: str,
    values: pd.DataFrame,
    comparisons: Sequence[Comparison],
    folds: pd.DataFrame | None = None,
) -> ComparedQuantity | None:
    """Run the planned comparisons for one quantity.

    Args:
        name: Name of the quantity in file names.
        title: Name of the quantity in headings.
        values: Values with one row per participant and one column per model and seed.
        comparisons: Planned comparisons.
        folds: Fold of every participant by model and seed, as for :func:`compare_models`.

    Returns:
        The results, to be corrected by :func:`correct`; None if no comparison is possible.
    """
    results = compare_models(values, comparisons, folds)
    if not results:
        return None
    complete = over_seeds(values)[list(dict.fromkeys(model for pair in results for model in pair))].dropna()
    can_test = complete.shape[1] >= 3 and len(complete) >= 2
    return ComparedQuantity(name, title, results, friedman(complete) if can_test else None)


def correct(
    quantities: Sequence[ComparedQuantity], family: Family = "table", margins: Mapping[str, float] = MARGINS
) -> list[ComparedQuantity]:
    """Correct the p values of all comparisons (Holm), and decide on each.

    Args:
        quantities: Compared quantities of a page.
        family: Comparisons over which the correction is made.
        margins: Largest differences that do not matter, by name of the quantity.

    Returns:
        Copies of the quantities with corrected results.
    """
    match family:
        case "table":
            corrected = [holm([result.p for result in quantity.results.values()]) for quantity in quantities]
        case "page":
            pooled = iter(holm([result.p for quantity in quantities for result in quantity.results.values()]))
            corrected = [[next(pooled) for _ in quantity.results] for quantity in quantities]
    size = sum(len(quantity.results) for quantity in quantities)
    return [
        replace(
            quantity,
            results={
                pair: result.corrected(p, margins.get(quantity.name))
                for (pair, result), p in zip(quantity.results.items(), p_values, strict=True)
            },
            family=family,
            family_size=size if family == "page" else len(quantity.results),
            margin=margins.get(quantity.name),
        )
        for quantity, p_values in zip(quantities, corrected, strict=True)
    ]


def of_model(values: pd.DataFrame, model: str) -> pd.DataFrame:
    """Return the values of a model.

    Args:
        values: Values with one row per participant and one column per model and seed.
        model: Name of the model.

    Returns:
        Values with one column per seed.
    """
    return values.loc[:, values.columns.get_level_values("model") == model].droplevel("model", axis=1)


def common_folds(folds: pd.DataFrame | None, models: Sequence[str], participants: pd.Index) -> pd.Series | None:
    """Return the fold of every participant if it is the same in all runs of some models.

    Args:
        folds: Fold of every participant by model and seed; None if unknown.
        models: Names of the models.
        participants: The participants.

    Returns:
        Folds by participant; None if they are unknown or differ.
    """
    if folds is None:
        return None
    runs = folds.loc[:, folds.columns.get_level_values("model").isin(models)].reindex(participants)
    first = runs.bfill(axis=1).iloc[:, 0]
    same = runs.isna() | runs.eq(first, axis=0)
    return first if bool(same.all(axis=None)) and bool(first.notna().all()) else None
