"""Reading the results of finished experiments."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.alignment import Coverage, common_keys
from cm_lightning.evaluation.levels import COUNTS
from cm_lightning.evaluation.pooling import pool_folds, read_table
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.calibration import SUMS
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, find_experiments, flatten
from cm_lightning.runs.settings import may_differ


@dataclass(frozen=True)
class Runs:
    """Results of finished experiments.

    Attributes:
        rows: Long table with one row per model, seed, case, class and metric.
        levels: Long table of counts by level of confidence and depth; empty if no experiment has them.
        calibration: Long table of sums by bin of probability; empty if no experiment has them.
        folders: Folders of the experiments of each model, one per seed.
        curves: Validation Dice by epoch of the folds and seeds of each model.
        problems: What could not be read, and the reason.
        left_out: Models that were tested on cases or classes which other models lack. The tables contain only the
            common cases and classes.
    """

    rows: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame
    folders: dict[str, list[ExperimentFolder]]
    curves: dict[str, list[pd.Series]]
    problems: list[tuple[str, str]]
    left_out: list[Coverage] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """All models in the order of the folders, including those after post-processing."""
        return list(dict.fromkeys(self.rows["model"]))

    def folds(self, model: str) -> list[FoldFolder]:
        """List the folders of all tested folds of a model, over all seeds."""
        return [fold for experiment in self.folders[model] for fold in experiment.tested_folds()]

    def settings(self, model: str) -> Settings:
        """Read the settings of the first fold of a model, with dotted names; empty if they were not stored."""
        fold = self.folders[model][0].fold(0)
        return flatten(fold.read_settings()) if fold.config.is_file() else {}

    def versions(self) -> pd.Series:
        """Count the tested folds for each set of software versions."""
        plans = [fold.read_test_plan() for model in self.folders for fold in self.folds(model)]
        versions = [plan.get("made_with", {}) for plan in plans]
        texts = [", ".join(f"{name} {number}" for name, number in packages.items()) for packages in versions]
        return pd.Series(texts).value_counts()

    def learning_curves(self, model: str) -> list[pd.Series]:
        """List the validation Dice by epoch of each fold and seed of a model."""
        return self.curves.get(model, [])


def load_runs(folders: Sequence[Path]) -> Runs:
    """Pool the folds of every experiment, and keep the cases and classes that all of them have.

    Experiments that cannot be read are listed and left out.

    If only the calibration or the learning curve of an experiment cannot be read, its other results are used. Runs of
    earlier versions have no calibration.

    Args:
        folders: Folders of experiments, or folders that contain folders of experiments.

    Returns:
        Results of all experiments that could be read.

    Raises:
        InputError: No experiment could be read, or the experiments have different units, groupings or tolerances of
            the surface Dice, or no case and class in common.
    """
    tables, levels, calibration, problems = [], [], [], []
    folders_of_model: dict[str, list[ExperimentFolder]] = {}
    curves: dict[str, list[pd.Series]] = {}
    loaded: dict[tuple[str, int], ExperimentFolder] = {}
    for experiment in find_experiments(folders):
        name, seed = experiment.model, experiment.seed
        try:
            if (name, seed) in loaded:
                raise InputError(f"{loaded[name, seed].path} has the same model and seed; expected each only once.")
            rows, counts = pool_folds(experiment), _read_levels(experiment)
            for fold in experiment.tested_folds():
                if fold.config.is_file():
                    fold.read_settings()
        except (InputError, MissingInputError) as error:
            problems.append((str(experiment.path), str(error)))
        else:
            tables.append(rows)
            levels.append(counts.assign(model=name, seed=seed))
            loaded[name, seed] = experiment
            folders_of_model.setdefault(name, []).append(experiment)
            try:
                calibration.append(_read_calibration(experiment).assign(model=name, seed=seed))
            except InputError as error:
                problems.append((f"{experiment.path}, calibration", str(error)))
            try:
                curves.setdefault(name, []).extend(_read_learning_curves(experiment))
            except InputError as error:
                problems.append((f"{experiment.path}, learning curves", str(error)))
    if not tables:
        reasons = "\n".join(f"{folder}: {reason}" for folder, reason in problems)
        raise InputError(f"None of the runs can be reported:\n{reasons}")
    rows = pd.concat(tables, ignore_index=True)
    for column in ("unit", "grouping"):
        if rows[column].nunique() > 1:
            examples = rows.groupby(column)["model"].first()
            values = ", ".join(f"{value!r} in {model}" for value, model in examples.items())
            raise InputError(
                f"The runs have different {column}s ({values}); expected the same {column} in all runs of a report."
            )
    _check_equal_tolerances(rows)
    aligned = common_keys(rows)
    measured = [table for table in calibration if len(table)]
    pooled_calibration = pd.concat(measured, ignore_index=True) if measured else pd.DataFrame()
    return Runs(
        aligned.select(rows),
        aligned.select(pd.concat(levels, ignore_index=True)),
        aligned.select(pooled_calibration),
        folders_of_model,
        curves,
        problems,
        aligned.left_out,
    )


def nsd_tolerances(rows: pd.DataFrame) -> pd.Series:
    """Return the tolerance of the surface Dice of each class, in the unit of the rows."""
    return rows[rows["metric"] == "nsd"].groupby("class", sort=False)["tolerance"].first()


def _check_equal_tolerances(rows: pd.DataFrame) -> None:
    """Check that the surface Dice of every class has the same tolerance in all runs."""
    for name, part in rows[rows["metric"] == "nsd"].groupby("class", sort=False):
        examples = part.groupby("tolerance")["model"].first()
        if len(examples) > 1:
            values = ", ".join(f"{value:g} in {model}" for value, model in examples.items())
            raise InputError(
                f"The runs have different tolerances of the surface Dice of {name} ({values}); expected the same "
                "nsd_tolerance in all runs of a report."
            )


def differing_settings(settings: dict[str, Settings]) -> pd.DataFrame:
    """Find the settings that differ between models.

    Args:
        settings: Settings of each model, with dotted names.

    Returns:
        Table with one row per model and one column per setting that differs. The experiment's name, the seed and
        settings that do not affect results (such as paths and devices) are left out.
    """
    keys = dict.fromkeys(key for flat in settings.values() for key in flat)
    values: dict[str, list[Any]] = {}
    for key in keys:
        column = [flat.get(key, "-") for flat in settings.values()]
        ignored = may_differ(key) or key in ("experiment", "seed_everything")
        if not ignored and any(value != column[0] for value in column):
            values[key] = column
    return pd.DataFrame(values, index=list(settings))


def _read_levels(experiment: ExperimentFolder) -> pd.DataFrame:
    paths = [fold.test_levels for fold in experiment.tested_folds()]
    return _read_tables(paths, {"case", "patient", "class", "by", "level", *COUNTS})


def _read_calibration(experiment: ExperimentFolder) -> pd.DataFrame:
    paths = [fold.test_calibration for fold in experiment.tested_folds()]
    return _read_tables(paths, {"case", "patient", "class", "calibration", "bin", *SUMS})


def _read_learning_curves(experiment: ExperimentFolder) -> list[pd.Series]:
    curves = []
    for fold in experiment.tested_folds():
        if fold.metrics.is_file():
            try:
                logged = pd.read_csv(fold.metrics)
            except ValueError as error:  # from pandas and from decoding
                raise InputError(f"{fold.metrics} cannot be read as a table: {error}.") from error
            if SCORE not in logged:  # training was stopped before the first validation
                continue
            if "epoch" not in logged or not pd.api.types.is_numeric_dtype(logged[SCORE]):
                raise InputError(f"{fold.metrics} has no column epoch, or no numbers in {SCORE}; expected both.")
            curves.append(logged.dropna(subset=SCORE).set_index("epoch")[SCORE])
    return curves


def _read_tables(paths: Sequence[Path], required: set[str]) -> pd.DataFrame:
    """Join the tables that exist."""
    tables = [read_table(path, required) for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
