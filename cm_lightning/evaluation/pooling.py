"""One long table from the folds of a cross-validation, whoever ran them and wherever."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.metrics.empty import EmptyPolicy
from cm_lightning.metrics.summary import patient_means

ROWS_FILE = "test_metrics.csv"
LEVELS_FILE = "test_levels.csv"
CALIBRATION_FILE = "test_calibration.csv"
PLAN_FILE = "test_plan.json"

Postprocessing = Literal["none", "largest component"]


def seeded_name(experiment: str, seed: int) -> str:
    """Name an experiment that is one of several with different seeds."""
    return f"{experiment}_seed{seed}"


def split_seed_name(experiment: str) -> tuple[str, int]:
    """Undo :func:`seeded_name`; an experiment without a seed in its name has the seed 0."""
    found = re.fullmatch(r"(.+)_seed(\d+)", experiment)
    return (found[1], int(found[2])) if found else (experiment, 0)


def postprocessed_name(model: str, postprocessing: Postprocessing) -> str:
    """Name a model by what was done to its predictions."""
    return model if postprocessing == "none" else f"{model} + {postprocessing}"


def tested_folds(experiment: Path) -> list[Path]:
    """Find the folders of an experiment's folds that have been tested."""
    return sorted(path.parent for path in experiment.glob(f"fold*/{ROWS_FILE}"))


def worst_case_picture(fold: Path, case: str) -> Path:
    """Name the picture of a case that was among the worst of a fold's test."""
    return fold / "pictures" / f"test_{case}.png"


def pool_folds(experiment: Path) -> pd.DataFrame:
    """Join the rows that the folds of an experiment wrote, and check that they are one cross-validation.

    Cases are measured once, each by the model of its own fold; means are then taken over all of them, not over means
    of folds.

    Args:
        experiment: Folder with ``fold0``, ``fold1``, ...; each has the rows of its test and the plan of all folds' test
            cases, which ``test`` writes.

    Returns:
        Long table: a row per case, class and metric, with ``fold``, ``model`` and ``seed``; the experiment
        ``x_seed1`` is the model ``x`` with seed 1. Results after post-processing are those of a model of their own.

    Raises:
        MissingInputError: There is no fold, or not every fold of the plan has been tested.
        InputError: The folds were planned differently, or a case is missing, doubled or not in the plan.
    """
    folders = tested_folds(experiment)
    if not folders:
        raise MissingInputError(
            f"There is no fold*/{ROWS_FILE} in {experiment}; expected folds that crossval, or fit and "
            "test, have finished."
        )
    plans = {folder: _read_plan(folder) for folder in folders}
    plan = plans[folders[0]]
    for folder, other in plans.items():
        if other["test_cases"] != plan["test_cases"] or other["split"] != plan["split"]:
            raise InputError(
                f"{folder} was tested on another plan of folds (split {other['split']!r}) than {folders[0]} (split "
                f"{plan['split']!r}); expected one split, from one file. Folds of two splits cannot be pooled."
            )
    tables = [_read_rows(folder) for folder in folders]
    missing = sorted({str(fold) for fold in range(len(plan["test_cases"]))} - {str(t["fold"].iloc[0]) for t in tables})
    if missing:
        raise MissingInputError(
            f"Of the {len(plan['test_cases'])} folds of {experiment}, fold {', '.join(missing)} has not been tested; "
            "expected all of them."
        )
    rows = pd.concat(tables, ignore_index=True)
    name, seed = split_seed_name(experiment.name)
    rows = rows.assign(model=[postprocessed_name(name, done) for done in rows["postprocessing"]], seed=seed)
    doubled = rows[rows.duplicated(["case", "class", "metric", "model"])]["case"].unique()
    if len(doubled):
        raise InputError(
            f"The cases {', '.join(sorted(doubled))} are in more than one fold of {experiment}; expected each once."
        )
    for fold, expected in enumerate(plan["test_cases"]):
        found = set(rows.loc[rows["fold"] == fold, "case"])
        if found != set(expected):
            raise InputError(
                f"Fold {fold} of {experiment} should have tested {len(expected)} cases and tested {len(found)}; "
                f"missing: {sorted(set(expected) - found)}, not planned: {sorted(found - set(expected))}. "
                "Run its test again."
            )
    return rows


def summarise_folds(rows: pd.DataFrame, policy: EmptyPolicy = "worst") -> pd.DataFrame:
    """Give the mean over patients with two spreads that are often mixed up.

    Args:
        rows: Long table of :func:`pool_folds`.
        policy: What an empty mask is worth.

    Returns:
        A row per model, class and metric, the class ``mean`` being each patient's mean over classes: ``mean`` and
        ``sd_patients`` over all patients, a patient's value being the mean over seeds; ``sd_folds`` over the folds'
        means, and ``sd_seeds`` over the means of runs that differ in their seed alone; the numbers ``patients``,
        ``folds`` and ``seeds``; and ``failures``: how often a class was lost or invented, a case, class and seed.
    """
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


def _read_plan(folder: Path) -> dict[str, Any]:
    path = folder / PLAN_FILE
    if not path.is_file():
        raise MissingInputError(f"There is no {path}; expected the plan of the folds that test writes beside its rows.")
    try:
        plan: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}. Run the fold's test again.") from error
    return plan


def _read_rows(folder: Path) -> pd.DataFrame:
    needed = {"case", "patient", "class", "metric", "value", "fold", "pred_empty", "truth_empty", "diagonal"}
    rows = read_table(folder / ROWS_FILE, needed)
    # Rows of runs before there was any post-processing.
    return rows if "postprocessing" in rows else rows.assign(postprocessing="none")


def read_table(path: Path, needed: set[str]) -> pd.DataFrame:
    """Read a table that ``test`` wrote.

    Args:
        path: CSV file.
        needed: Columns that it must have.

    Returns:
        The table; cases and patients are text.

    Raises:
        InputError: It is no table, is empty or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype={"case": str, "patient": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}. Run the fold's test again.") from error
    lacking = sorted(needed - set(table.columns))
    if lacking or table.empty:
        raise InputError(f"{path} has {len(table)} rows and lacks the columns {lacking}; run the fold's test again.")
    return table
