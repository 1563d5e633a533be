"""Pooling the results of all folds of a cross-validation into one long table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.metrics.segmentation import NSD_TOLERANCE
from cm_lightning.runs import ExperimentFolder, FoldFolder
from cm_lightning.runs.layout import TEST_METRICS_FILE

Postprocessing = Literal["none", "largest component"]
# Columns of names; a case may be called "nan".
NAMES = ("case", "patient", "grouping", "unit", "postprocessing", "class", "metric", "by", "calibration")


def postprocessed_name(model: str, postprocessing: Postprocessing) -> str:
    """Return the name of a model with its post-processing."""
    return model if postprocessing == "none" else f"{model} + {postprocessing}"


def pool_folds(experiment: ExperimentFolder) -> pd.DataFrame:
    """Join the test results of all folds, and check that they form one complete cross-validation.

    Every case is tested once, by the model of the fold that has it in its test set, so means are computed over all
    cases rather than over folds.

    Args:
        experiment: Folder of the experiment. Every fold contains the files that ``test`` writes: results, and the test
            cases of all folds.

    Returns:
        Long table with one row per case, class and metric, and with the columns ``fold``, ``model`` and ``seed``. The
        experiment ``x_seed1`` is model ``x`` with seed 1. Results after post-processing belong to a separate model.

    Raises:
        MissingInputError: There is no tested fold, or a fold has not been tested.
        InputError: The folds belong to different splits, a case is missing, tested twice or not in the split, or a
            patient is in two folds.
    """
    folds = experiment.tested_folds()
    if not folds:
        raise MissingInputError(
            f"There is no fold*/{TEST_METRICS_FILE} in {experiment.path}; expected folds that were finished by "
            "crossval, or by fit and test."
        )
    plans = {fold: fold.read_test_plan() for fold in folds}
    plan = plans[folds[0]]
    for fold, other in plans.items():
        if other["test_cases"] != plan["test_cases"] or other.get("split") != plan.get("split"):
            raise InputError(
                f"{fold.path} (split {other.get('split')!r}) and {folds[0].path} (split {plan.get('split')!r}) have "
                "different test cases; expected folds of one split, since folds of different splits cannot be pooled."
            )
    tables = [_read_rows(fold) for fold in folds]
    check_complete(dict(zip((fold.test_metrics for fold in folds), tables, strict=True)))
    tested = {str(table["fold"].iloc[0]) for table in tables}
    missing = sorted({str(number) for number in range(len(plan["test_cases"]))} - tested)
    if missing:
        raise MissingInputError(
            f"Of the {len(plan['test_cases'])} folds of {experiment.path}, fold {', '.join(missing)} has not been "
            "tested; expected all folds."
        )
    rows = pd.concat(tables, ignore_index=True)
    models = [postprocessed_name(experiment.model, postprocessing) for postprocessing in rows["postprocessing"]]
    rows = rows.assign(model=models, seed=experiment.seed)
    duplicates = rows[rows.duplicated(["case", "class", "metric", "model"])]["case"].unique()
    if len(duplicates):
        raise InputError(
            f"The cases {', '.join(sorted(duplicates))} are in more than one fold of {experiment.path}; expected each "
            "case once."
        )
    folds_of_patient = rows.groupby("patient")["fold"].unique()
    divided = folds_of_patient[folds_of_patient.map(len) > 1]
    if len(divided):
        numbers = ", ".join(str(number) for number in sorted(divided.iloc[0]))
        raise InputError(
            f"The patient {divided.index[0]} has cases in the folds {numbers} of {experiment.path}; expected all cases "
            "of a patient in one fold, since a network must not be tested on a patient of its training."
        )
    for number, expected in enumerate(plan["test_cases"]):
        cases = set(rows.loc[rows["fold"] == number, "case"])
        if cases != set(expected):
            raise InputError(
                f"Fold {number} of {experiment.path} has results of {len(cases)} cases, expected {len(expected)}; "
                f"missing: {sorted(set(expected) - cases)}, not in the split: {sorted(cases - set(expected))}. "
                "Run its test again."
            )
    return rows


def check_complete(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Check that every case of all folds has the same metrics of the same classes, in the same unit.

    Args:
        tables: Long table of every fold by its file.

    Raises:
        InputError: A file has been cut, or the folds have different units.
    """
    columns = ["class", "metric", "postprocessing"]
    everything = {key for table in tables.values() for key in table[columns].itertuples(index=False, name=None)}
    units = {path: sorted(set(table["unit"])) for path, table in tables.items() if "unit" in table}
    first = next(iter(units), None)
    for path, table in tables.items():
        # Folds may differ in their post-processing.
        used = set(table["postprocessing"])
        expected = {key for key in everything if key[2] in used}
        for case, rows in table.groupby("case"):
            found = set(rows[columns].itertuples(index=False, name=None))
            if found != expected:
                raise InputError(
                    f"{path} has {len(found)} results of the case {case}, expected {len(expected)} as for other cases; "
                    "the file may have been cut. Run the fold's test again."
                )
        if first is not None and path in units and units[path] != units[first]:
            raise InputError(
                f"{path} has distances in {', '.join(units[path])}, but {first} in {', '.join(units[first])}; "
                "expected the same unit, since such folds cannot be pooled."
            )


def _read_rows(fold: FoldFolder) -> pd.DataFrame:
    required = {"case", "patient", "class", "metric", "value", "fold", "pred_empty", "truth_empty", "diagonal"}
    rows = read_table(fold.test_metrics, required)
    # Runs of early versions do not have the column.
    rows = rows if "postprocessing" in rows else rows.assign(postprocessing="none")
    return rows if "tolerance" in rows else rows.assign(tolerance=NSD_TOLERANCE)  # which was fixed


def read_table(path: Path, required: set[str]) -> pd.DataFrame:
    """Read a table that ``test`` wrote.

    Args:
        path: CSV file.
        required: Required columns.

    Returns:
        The table. Names such as cases and patients are strings, also those such as "nan"; other required columns are
        numbers.

    Raises:
        InputError: The file is not a table, is empty, lacks a column, or contains something else than numbers.
    """
    try:
        columns = pd.read_csv(path, nrows=0).columns
        table = pd.read_csv(
            path,
            dtype={name: str for name in columns if name in NAMES},
            keep_default_na=False,
            na_values={name: ["", "nan"] for name in columns if name not in NAMES},
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}. Run the fold's test again.") from error
    missing = sorted(required - set(table.columns))
    if missing:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(sorted(required))}. Run the fold's "
            "test again."
        )
    if table.empty:
        raise InputError(f"{path} contains no rows. Run the fold's test again.")
    for column in sorted(required - set(NAMES)):
        if not pd.api.types.is_numeric_dtype(table[column]):  # truth values count as numbers
            raise InputError(
                f"{path} contains something else than numbers in the column {column}. Run the fold's test again."
            )
    return table
