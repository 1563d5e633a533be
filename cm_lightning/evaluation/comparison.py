"""Several models over the same participants: values, planned comparisons, failures."""

from collections.abc import Mapping

import pandas as pd

from cm_lightning.evaluation.statistics import PairedResult, compare_pairs
from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


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


def compare_models(values: pd.DataFrame, baselines: Mapping[str, str], seed: int = 0) -> dict[str, PairedResult]:
    """Compare models with their baselines over the participants that both have a value of.

    Args:
        values: A row per participant, a column per model, as :func:`participant_values` gives it.
        baselines: Model to baseline: the comparisons that were planned, corrected for together.
        seed: Of the bootstrap.

    Returns:
        A result for every model that has a baseline among the models and two participants in common with it.
    """
    planned: list[str] = []
    pairs = []
    for model, baseline in baselines.items():
        if model in values and baseline in values:
            common = values[[baseline, model]].dropna()
            if len(common) >= 2:
                planned.append(model)
                pairs.append((common[baseline].to_numpy(), common[model].to_numpy()))
    return dict(zip(planned, compare_pairs(pairs, seed), strict=True))
