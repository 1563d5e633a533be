"""One long table from the folds of a cross-validation, whoever ran them and wherever."""

from pathlib import Path
from typing import Literal

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.runs import ExperimentFolder, FoldFolder
from cm_lightning.runs.layout import TEST_METRICS_FILE

Postprocessing = Literal["none", "largest component"]


def postprocessed_name(model: str, postprocessing: Postprocessing) -> str:
    """Name a model by what was done to its predictions."""
    return model if postprocessing == "none" else f"{model} + {postprocessing}"


def pool_folds(experiment: ExperimentFolder) -> pd.DataFrame:
    """Join the rows that the folds of an experiment wrote, and check that they are one cross-validation.

    Cases are measured once, each by the model of its own fold; means are then taken over all of them, not over means
    of folds.

    Args:
        experiment: Each of its folds has the rows of its test and the plan of all folds' test cases, which ``test``
            writes.

    Returns:
        Long table: a row per case, class and metric, with ``fold``, ``model`` and ``seed``; the experiment
        ``x_seed1`` is the model ``x`` with seed 1. Results after post-processing are those of a model of their own.

    Raises:
        MissingInputError: There is no fold, or not every fold of the plan has been tested.
        InputError: The folds were planned differently, or a case is missing, doubled or not in the plan.
    """
    folds = experiment.tested_folds()
    if not folds:
        raise MissingInputError(
            f"There is no fold*/{TEST_METRICS_FILE} in {experiment.path}; expected folds that crossval, or fit and "
            "test, have finished."
        )
    plans = {fold: fold.read_test_plan() for fold in folds}
    plan = plans[folds[0]]
    for fold, other in plans.items():
        if other["test_cases"] != plan["test_cases"] or other["split"] != plan["split"]:
            raise InputError(
                f"{fold.path} was tested on another plan of folds (split {other['split']!r}) than {folds[0].path} "
                f"(split {plan['split']!r}); expected one split, from one file. Folds of two splits cannot be pooled."
            )
    tables = [_read_rows(fold) for fold in folds]
    missing = sorted({str(fold) for fold in range(len(plan["test_cases"]))} - {str(t["fold"].iloc[0]) for t in tables})
    if missing:
        raise MissingInputError(
            f"Of the {len(plan['test_cases'])} folds of {experiment.path}, fold {', '.join(missing)} has not been "
            "tested; expected all of them."
        )
    rows = pd.concat(tables, ignore_index=True)
    models = [postprocessed_name(experiment.model, postprocessing) for postprocessing in rows["postprocessing"]]
    rows = rows.assign(model=models, seed=experiment.seed)
    doubled = rows[rows.duplicated(["case", "class", "metric", "model"])]["case"].unique()
    if len(doubled):
        raise InputError(
            f"The cases {', '.join(sorted(doubled))} are in more than one fold of {experiment.path}; expected "
            "each once."
        )
    for number, expected in enumerate(plan["test_cases"]):
        found = set(rows.loc[rows["fold"] == number, "case"])
        if found != set(expected):
            raise InputError(
                f"Fold {number} of {experiment.path} should have tested {len(expected)} cases and tested {len(found)}; "
                f"missing: {sorted(set(expected) - found)}, not planned: {sorted(found - set(expected))}. "
                "Run its test again."
            )
    return rows


def _read_rows(fold: FoldFolder) -> pd.DataFrame:
    needed = {"case", "patient", "class", "metric", "value", "fold", "pred_empty", "truth_empty", "diagonal"}
    rows = read_table(fold.test_metrics, needed)
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
