"""Mean and spread over patients, from the long table."""

import pandas as pd

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


def summarise(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Average the cases of every patient, then the patients.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``.
        policy: What an empty mask is worth.

    Returns:
        A row per class and metric, and per metric for the mean over classes ("mean"): ``mean``, ``sd`` over patients,
        and the number of patients ``n`` that count.
    """
    scored = apply_empty_policy(rows, policy)
    # The spread of a class is over patients; the mean over classes is formed within each patient first.
    by_class = scored.groupby(["patient", "class", "metric"], sort=False)["value"].mean().reset_index()
    overall = by_class.groupby(["patient", "metric"], sort=False)["value"].mean().reset_index()
    both = pd.concat([by_class, overall.assign(**{"class": "mean"})])
    table = both.groupby(["class", "metric"], sort=False)["value"].agg(mean="mean", sd="std", n="count")
    return table.reset_index()
