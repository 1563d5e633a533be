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
    """Give the mean over patients with the spreads that are often mixed up.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``, and with
            ``model``, ``fold`` and ``seed`` where there are several.
        policy: What an empty mask is worth.

    Returns:
        A row per model, class and metric, the class "mean" being each patient's mean over classes: ``mean`` and
        ``sd_patients`` over all patients, a patient's value being the mean over seeds; ``sd_folds`` over the folds'
        means, and ``sd_seeds`` over the means of runs that differ in their seed alone; the numbers ``patients``,
        ``folds`` and ``seeds``; and ``failures``: how often a class was lost or invented, a case, class and seed.
    """
    one = {key: value for key, value in (("model", ""), ("fold", 0), ("seed", 0)) if key not in rows}
    rows = rows.assign(**one)
    both = patient_means(rows, policy, ["model", "fold"])
    what = ["model", "class", "metric"]
    over_patients = both.groupby(what, sort=False)["value"].agg(mean="mean", sd_patients="std", patients="count")
    fold_means = both.groupby([*what, "fold"], sort=False)["value"].mean()
    over_folds = fold_means.groupby(what, sort=False).agg(sd_folds="std", folds="count")
    seed_means = patient_means(rows, policy, ["model", "seed"]).groupby([*what, "seed"], sort=False)["value"].mean()
    over_seeds = seed_means.groupby(what, sort=False).agg(sd_seeds="std", seeds="count")
    one_side = rows[rows["pred_empty"] ^ rows["truth_empty"]].drop_duplicates(["model", "seed", "case", "class"])
    failures = one_side.groupby(["model", "class"]).size().rename("failures")
    total = one_side.groupby("model").size().rename("failures").reset_index().assign(**{"class": "mean"})
    failures = pd.concat([failures, total.set_index(["model", "class"])["failures"]])
    table = over_patients.join(over_folds).join(over_seeds).join(failures, on=["model", "class"])
    return table.assign(failures=table["failures"].fillna(0).astype(int)).reset_index()
