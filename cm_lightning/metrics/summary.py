"""Mean and standard deviation of metrics over patients."""

from collections.abc import Sequence

import pandas as pd

from cm_lightning.metrics.empty import EmptyPolicy, apply_empty_policy


def patient_means(rows: pd.DataFrame, policy: EmptyPolicy = "worst", by: Sequence[str] = ()) -> pd.DataFrame:
    """Average the cases of every patient for each class, and then the classes.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``.
        policy: Policy for empty masks; see :func:`cm_lightning.metrics.apply_empty_policy`.
        by: Further columns that define groups, such as the model.

    Returns:
        Long table with one row per group, patient, class and metric. The class "mean" is the patient's mean over the
        classes.
    """
    scored = apply_empty_policy(rows, policy)
    keys = [*by, "patient"]
    by_class = scored.groupby([*keys, "class", "metric"], sort=False)["value"].mean().reset_index()
    overall = by_class.groupby([*keys, "metric"], sort=False)["value"].mean().reset_index()
    return pd.concat([by_class, overall.assign(**{"class": "mean"})])


def summarise(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Compute means over patients, with standard deviations over patients, folds and seeds.

    Args:
        rows: Long table of :func:`cm_lightning.metrics.case_rows` with the columns ``case`` and ``patient``, and with
            ``model``, ``fold`` and ``seed`` if there are several.
        policy: Policy for empty masks; see :func:`cm_lightning.metrics.apply_empty_policy`.

    Returns:
        Table with one row per model, class and metric, where the class "mean" is the mean over the classes of a
        patient: ``mean`` and ``sd_patients`` over patients (after averaging the seeds of a patient), ``sd_folds`` over
        the means of the folds, ``sd_seeds`` over the means of runs with different seeds, the numbers of ``patients``,
        ``folds`` and ``seeds``, and the number of ``failures``, in which either the prediction or the label of a class
        is empty.
    """
    defaults = {key: value for key, value in (("model", ""), ("fold", 0), ("seed", 0)) if key not in rows}
    rows = rows.assign(**defaults)
    per_fold = patient_means(rows, policy, ["model", "fold"])
    keys = ["model", "class", "metric"]
    over_patients = per_fold.groupby(keys, sort=False)["value"].agg(mean="mean", sd_patients="std", patients="count")
    fold_means = per_fold.groupby([*keys, "fold"], sort=False)["value"].mean()
    over_folds = fold_means.groupby(keys, sort=False).agg(sd_folds="std", folds="count")
    seed_means = patient_means(rows, policy, ["model", "seed"]).groupby([*keys, "seed"], sort=False)["value"].mean()
    over_seeds = seed_means.groupby(keys, sort=False).agg(sd_seeds="std", seeds="count")
    one_empty = rows[rows["pred_empty"] ^ rows["truth_empty"]].drop_duplicates(["model", "seed", "case", "class"])
    failures = one_empty.groupby(["model", "class"]).size().rename("failures")
    total = one_empty.groupby("model").size().rename("failures").reset_index().assign(**{"class": "mean"})
    failures = pd.concat([failures, total.set_index(["model", "class"])["failures"]])
    table = over_patients.join(over_folds).join(over_seeds).join(failures, on=["model", "class"])
    return table.assign(failures=table["failures"].fillna(0).astype(int)).reset_index()
