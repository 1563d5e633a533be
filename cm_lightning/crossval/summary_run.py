"""Summary of a cross-validation as one W&B run, created from the folders of the folds."""

import pandas as pd
from lightning_utilities.core.rank_zero import rank_zero_warn

from cm_lightning.drawing import figure_pixels
from cm_lightning.evaluation.comparison import over_seeds, seed_values
from cm_lightning.evaluation.figures import box_plot
from cm_lightning.evaluation.pooling import pool_folds
from cm_lightning.metrics import METRICS
from cm_lightning.metrics.summary import patient_means, summarise
from cm_lightning.runs import ExperimentFolder
from cm_lightning.tracking.policy import RunIdentity, WandbSettings, resolve_mode, start_run


def log_summary_run(experiment: ExperimentFolder, settings: WandbSettings) -> None:
    """Log a finished cross-validation as a W&B run of type ``cv-summary`` in the group of its folds.

    The run contains ``cv/<metric>/mean`` and ``cv/<metric>/std`` (over patients, of means over classes), the table
    ``tables/cv_folds`` and the box plot ``plots/cv_box``. Repeated calls update the same run.

    Args:
        experiment: Folder of the experiment with all folds, tested. The W&B files are written to ``wandb`` in it.
        settings: W&B settings.

    Raises:
        InputError: The folds are not one complete cross-validation.
    """
    if resolve_mode(settings)[0] == "disabled":
        return
    rows = pool_folds(experiment)
    rows = rows[rows["postprocessing"] == "none"]
    try:
        _log(experiment, settings, rows)
    except Exception as error:  # errors of W&B have no common base class; all results are in files
        rank_zero_warn(f"The summary of {experiment.name} is not logged to W&B because of an error: {error}")


def _log(experiment: ExperimentFolder, settings: WandbSettings, rows: pd.DataFrame) -> None:
    import wandb

    table = fold_table(rows)
    name = experiment.name
    run = start_run(settings, RunIdentity(experiment.path, f"{name}/cv-summary", name, "cv-summary"))
    run.config.update(  # type: ignore[no-untyped-call]
        {
            "experiment": name,
            "folds": int(rows["fold"].nunique()),
            "cases": int(rows["case"].nunique()),
            "patients": int(rows["patient"].nunique()),
            "grouping": rows["grouping"].iloc[0],
        },
        allow_val_change=True,
    )
    overall = table.set_index("fold")
    heading = METRICS["dice"].heading(rows["unit"].iloc[0])
    values: dict[str, object] = {}
    for metric in table.columns.drop(["fold", "cases", "failures"]):
        values[f"cv/{metric}/mean"] = overall[metric]["mean"].item()
        values[f"cv/{metric}/std"] = overall[metric]["SD over patients"].item()
    values["tables/cv_folds"] = wandb.Table(dataframe=table)
    dice = over_seeds(seed_values(_by_fold(rows), "dice"))
    values["plots/cv_box"] = wandb.Image(figure_pixels(box_plot(dice, heading)))
    run.log(values)
    run.finish()


def fold_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise the results of each fold and of all folds.

    Args:
        rows: Long table of the cross-validation of one model, one row per case, class and metric.

    Returns:
        Table with one row per ``fold`` and the rows "mean", "SD over patients" and "SD over folds". Its columns are the
        number of ``cases``, the number of ``failures`` (a class was missed, or is a false positive) and, for each
        metric, the mean over patients of the mean over classes.
    """
    by_fold = patient_means(rows, by=["fold"])
    means = (
        by_fold[by_fold["class"] == "mean"].groupby(["fold", "metric"], sort=False)["value"].mean().unstack("metric")
    )
    summary = summarise(rows)
    summary = summary[summary["class"] == "mean"].set_index("metric")
    names = [metric for metric in METRICS if metric in means]
    failed = rows[rows["pred_empty"] ^ rows["truth_empty"]].drop_duplicates(["case", "class"]).groupby("fold").size()
    folds = means[names].assign(cases=rows.groupby("fold")["case"].nunique(), failures=failed)
    folds["failures"] = folds["failures"].fillna(0)
    pooled = summary.loc[names, ["mean", "sd_patients", "sd_folds"]].T
    pooled.index = pd.Index(["mean", "SD over patients", "SD over folds"])
    pooled.loc["mean", ["cases", "failures"]] = folds[["cases", "failures"]].sum()
    folds.index = folds.index.astype(str)
    table = pd.concat([folds, pooled])[["cases", "failures", *names]]
    return table.rename_axis("fold").reset_index()


def _by_fold(rows: pd.DataFrame) -> pd.DataFrame:
    """Label the rows of each fold as a separate model, and add all rows once more as the model "all folds"."""
    all_folds = rows.assign(model="all folds")
    return pd.concat([all_folds, rows.assign(model=[f"fold {fold}" for fold in rows["fold"]])])
