"""What is read from the folders of finished experiments."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.levels import COUNTS
from cm_lightning.evaluation.pooling import pool_folds, read_table
from cm_lightning.metrics import SCORE
from cm_lightning.metrics.calibration import SUMS
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, find_experiments, flatten
from cm_lightning.runs.settings import may_differ


@dataclass(frozen=True)
class Runs:
    """Finished experiments.

    Attributes:
        rows: Long table of all metrics.
        levels: Long table of counts by confidence and depth; empty where no run has them.
        calibration: Long table of sums by probability; empty where no run has them.
        folders: Folders of every model, one a seed.
        problems: Folder and reason of what could not be read.
    """

    rows: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame
    folders: dict[str, list[ExperimentFolder]]
    problems: list[tuple[str, str]]

    @property
    def models(self) -> list[str]:
        """All models, those after post-processing included, in the order of the folders."""
        return list(dict.fromkeys(self.rows["model"]))

    def folds(self, model: str) -> list[FoldFolder]:
        """Folders of all tested folds of all seeds of a model."""
        return [fold for experiment in self.folders[model] for fold in experiment.tested_folds()]

    def settings(self, model: str) -> Settings:
        """Settings of a model's first run, with dotted names; none where they were not kept."""
        fold = self.folders[model][0].fold(0)
        return flatten(fold.read_settings()) if fold.config.is_file() else {}

    def versions(self) -> pd.Series:
        """Count the folds that were tested with each set of versions."""
        plans = [fold.read_test_plan() for model in self.folders for fold in self.folds(model)]
        versions = [plan.get("made_with", {}) for plan in plans]
        named = [", ".join(f"{name} {version}" for name, version in one.items()) for one in versions]
        return pd.Series(named).value_counts()

    def learning_curves(self, model: str) -> list[pd.Series]:
        """Validation Dice over epochs of every fold and seed of a model."""
        curves = []
        for fold in self.folds(model):
            if fold.metrics.is_file():
                logged = pd.read_csv(fold.metrics)
                if SCORE in logged:
                    curves.append(logged.dropna(subset=SCORE).set_index("epoch")[SCORE])
        return curves


def load_runs(folders: Sequence[Path]) -> Runs:
    """Pool the folds of every experiment, and go on where one cannot be read.

    Runs of earlier versions have no calibration. Where it cannot be read, the rest of the run still counts.

    Args:
        folders: Folders of experiments, or folders that hold such.

    Returns:
        All that could be read.

    Raises:
        InputError: Nothing could be read, or the experiments measure in different units or groups.
    """
    tables, levels, calibration, problems = [], [], [], []
    read: dict[str, list[ExperimentFolder]] = {}
    taken: dict[tuple[str, int], ExperimentFolder] = {}
    for experiment in find_experiments(folders):
        name, seed = experiment.model, experiment.seed
        try:
            if (name, seed) in taken:
                raise InputError(f"{taken[name, seed].path} is the same model with the same seed; expected each once.")
            rows, counts = pool_folds(experiment), _read_levels(experiment)
        except (InputError, MissingInputError) as error:
            problems.append((str(experiment.path), str(error)))
        else:
            tables.append(rows)
            levels.append(counts.assign(model=name, seed=seed))
            taken[name, seed] = experiment
            read.setdefault(name, []).append(experiment)
            try:
                calibration.append(_read_calibration(experiment).assign(model=name, seed=seed))
            except InputError as error:
                problems.append((f"{experiment.path}, calibration", str(error)))
    if not tables:
        reasons = "\n".join(f"{folder}: {reason}" for folder, reason in problems)
        raise InputError(f"None of the runs can be reported:\n{reasons}")
    rows = pd.concat(tables, ignore_index=True)
    for column in ("unit", "grouping"):
        if rows[column].nunique() > 1:
            found = rows.groupby(column)["model"].first().to_dict()
            raise InputError(f"The runs do not share one {column}: {found}. Report them apart.")
    measured = [bins for bins in calibration if len(bins)]
    pooled = pd.concat(measured, ignore_index=True) if measured else pd.DataFrame()
    return Runs(rows, pd.concat(levels, ignore_index=True), pooled, read, problems)


def differing_settings(settings: dict[str, Settings]) -> pd.DataFrame:
    """Find what distinguishes experiments.

    Args:
        settings: Flat settings of every model.

    Returns:
        A row per model, a column per setting that is not the same in all; those that say only where and how a run is,
        its name and its seed are left out.
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


def _read_tables(paths: Sequence[Path], needed: set[str]) -> pd.DataFrame:
    """Join those of the tables that are there."""
    tables = [read_table(path, needed) for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
