"""Mean and spread over patients, from the long table."""

from collections.abc import Sequence

import pandas as pd

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


def patient_means(rows: pd.DataFrame, policy: EmptyPolicy = "worst", by: Sequence[str] = ()) -> pd.DataFrame:
    """Average every patient's cases, class by class, and then her classes.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``.
        policy: What an empty mask is worth.
        by: Columns whose values are kept apart, such as the model.

    Returns:
        A row per patient, class and metric with its ``value``, the class "mean" being the patient's mean over classes.
    """
    scored = apply_empty_policy(rows, policy)
    keys = [*by, "patient"]
    by_class = scored.groupby([*keys, "class", "metric"], sort=False)["value"].mean().reset_index()
    overall = by_class.groupby([*keys, "metric"], sort=False)["value"].mean().reset_index()
    return pd.concat([by_class, overall.assign(**{"class": "mean"})])


def summarise(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Average the cases of every patient, then the patients.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``.
        policy: What an empty mask is worth.

    Returns:
        A row per class and metric, and per metric for the mean over classes ("mean"): ``mean``, ``sd`` over patients,
        and the number of patients ``n`` that count.
    """
    grouped = patient_means(rows, policy).groupby(["class", "metric"], sort=False)["value"]
    return grouped.agg(mean="mean", sd="std", n="count").reset_index()
