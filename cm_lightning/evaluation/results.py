"""All values of a report. Each is computed once; tables and figures only present them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import pandas as pd

from cm_lightning.evaluation.calibration import chance_calibration, participant_calibration
from cm_lightning.evaluation.comparison import (
    MARGINS,
    ComparedQuantity,
    Comparison,
    Family,
    compare_quantity,
    correct,
    over_seeds,
    participant_folds,
    seed_values,
)
from cm_lightning.evaluation.levels import error_profile, participant_errors, regions
from cm_lightning.evaluation.loading import Runs, differing_settings
from cm_lightning.metrics import METRICS, EmptyPolicy
from cm_lightning.metrics.summary import summarise

# Metrics that are compared, drawn as box plots, and ranked.
COMPARED_METRICS = ("dice", "hd", "asd", "islands")
PLOTTED_METRICS = ("dice", "hd", "asd")
RANKED_METRICS = ("dice", "hd")
POLICIES: tuple[EmptyPolicy, ...] = ("worst", "detected")


@dataclass(frozen=True)
class RegionErrors:
    """Errors within a region of low confidence, high confidence or large depth.

    Attributes:
        title: Description of the region, which follows the word "where".
        by_seed: Errors with one row per participant and one column per model and seed.
    """

    title: str
    by_seed: pd.DataFrame

    @cached_property
    def values(self) -> pd.DataFrame:
        """Errors averaged over seeds."""
        return over_seeds(self.by_seed)


@dataclass(frozen=True)
class Calibration:
    """Calibration of the probabilities of all models.

    Attributes:
        participants: Columns ``ece``, ``ace`` and ``brier``, indexed by model, calibration and participant.
        chance: Mean ECE of a perfectly calibrated model that is expected by chance, by model and calibration.
    """

    participants: pd.DataFrame
    chance: pd.Series


@dataclass(frozen=True)
class Results:
    """Values that a report computes from finished experiments.

    Attributes:
        runs: Tables of the experiments.
        comparisons: Planned comparisons.
        family: Comparisons over which Holm's correction is made.
        margins: Largest differences that do not matter, by name of the quantity.
    """

    runs: Runs
    comparisons: Sequence[Comparison]
    family: Family = "table"
    margins: Mapping[str, float] = field(default_factory=lambda: MARGINS)

    @property
    def unit(self) -> str:
        """Unit of distances."""
        return str(self.runs.rows["unit"].iloc[0])

    @cached_property
    def tested(self) -> dict[str, int]:
        """Number of participants on which each model was tested."""
        return {str(model): int(n) for model, n in self.runs.rows.groupby("model")["patient"].nunique().items()}

    @cached_property
    def summaries(self) -> dict[EmptyPolicy, pd.DataFrame]:
        """Means and standard deviations of each model, class and metric, by the treatment of empty masks."""
        return {policy: summarise(self.runs.rows, policy) for policy in POLICIES}

    @cached_property
    def by_seed(self) -> dict[str, pd.DataFrame]:
        """Values of each compared metric by participant, and by model and seed, mean over classes."""
        return {metric: seed_values(self.runs.rows, metric) for metric in COMPARED_METRICS}

    @cached_property
    def participants(self) -> dict[str, pd.DataFrame]:
        """Values of each compared metric with one row per participant and one column per model, mean over seeds."""
        return {metric: over_seeds(values) for metric, values in self.by_seed.items()}

    @cached_property
    def errors(self) -> dict[str, RegionErrors]:
        """Errors by the name of the region; empty if they were not measured."""
        levels = self.runs.levels
        if levels.empty:
            return {}
        return {
            name: RegionErrors(title, participant_errors(levels, within))
            for name, (title, within) in regions(levels).items()
        }

    @cached_property
    def profiles(self) -> dict[str, pd.DataFrame]:
        """Mean errors by level of confidence and of depth, if they were measured."""
        levels = self.runs.levels
        measured = set() if levels.empty else set(levels["by"])
        return {by: error_profile(levels, by) for by in ("confidence", "depth") if by in measured}

    @cached_property
    def values(self) -> pd.DataFrame:
        """All compared values: long table with ``quantity``, ``model``, ``seed``, ``fold``, ``patient`` and ``value``.

        Every test of the report can be computed from it.
        """
        folds = participant_folds(self.runs.rows)
        tables = dict(self.by_seed)
        tables |= {f"error_{name}": error.by_seed for name, error in self.errors.items()}
        long = {
            name: pd.DataFrame({"fold": _long(folds), "value": _long(table)}).dropna(subset="value")
            for name, table in tables.items()
        }
        rows = pd.concat(long, names=["quantity"]).reset_index()
        return rows[["quantity", "model", "seed", "fold", "patient", "value"]].astype({"fold": int})

    @cached_property
    def quantities(self) -> dict[str, ComparedQuantity]:
        """Results of the planned comparisons by the name of the quantity."""
        values = {name: (METRICS[name].heading(self.unit), self.by_seed[name]) for name in COMPARED_METRICS}
        values |= {
            f"error_{name}": (f"error where {error.title}", error.by_seed) for name, error in self.errors.items()
        }
        folds = participant_folds(self.runs.rows)
        compared = [
            compare_quantity(name, title, table, self.comparisons, folds) for name, (title, table) in values.items()
        ]
        found = [quantity for quantity in compared if quantity is not None]
        return {quantity.name: quantity for quantity in correct(found, self.family, self.margins)}

    @cached_property
    def calibration(self) -> Calibration | None:
        """Calibration of all models; None if it was not measured."""
        rows = self.runs.calibration
        return None if rows.empty else Calibration(participant_calibration(rows), chance_calibration(rows))

    @cached_property
    def epochs_to_converge(self) -> dict[str, float]:
        """Mean number of epochs until 95 % of the best validation Dice, for each model with learning curves."""
        epochs = {
            model: [_epochs_to_converge(curve) for curve in self.runs.learning_curves(model)]
            for model in self.runs.folders
        }
        return {model: sum(numbers) / len(numbers) for model, numbers in epochs.items() if numbers}

    @cached_property
    def differing_settings(self) -> pd.DataFrame:
        """Settings that differ, with one row per model; empty with one model or without stored settings."""
        settings = {model: self.runs.settings(model) for model in self.runs.folders}
        if len(settings) < 2 or not all(settings.values()):
            return pd.DataFrame()
        return differing_settings(settings)

    def ranked(self, metric: str) -> pd.DataFrame:
        """Return the values for ranking: models without post-processing, participants with values for all of them.

        Args:
            metric: Name of the metric.

        Returns:
            Values with one row per participant and one column per model.
        """
        plain = [model for model in self.participants[metric] if model in self.runs.folders]
        return self.participants[metric][plain].dropna()


def _long(table: pd.DataFrame) -> pd.Series:
    """Arrange a table of participants, models and seeds as one column."""
    columns = table.rename_axis(index="patient", columns=["model", "seed"]).unstack()
    return cast(pd.Series, columns).sort_index()


def _epochs_to_converge(curve: pd.Series) -> int:
    """Count the epochs until a validation curve first reaches 95 % of its best value."""
    return int((curve >= 0.95 * curve.max()).to_numpy().argmax()) + 1
