"""Every number of a report, each computed once; tables and figures only show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from cm_lightning.evaluation.calibration import chance_calibration, participant_calibration
from cm_lightning.evaluation.comparison import ComparedQuantity, Comparison, compare_quantity, participant_values
from cm_lightning.evaluation.levels import error_profile, participant_errors, regions
from cm_lightning.evaluation.loading import Runs, differing_settings
from cm_lightning.metrics import METRICS, EmptyPolicy
from cm_lightning.metrics.summary import summarise

COMPARED = ("dice", "hd", "asd", "islands")
DRAWN = ("dice", "hd", "asd")
RANKED = ("dice", "hd")
POLICIES: tuple[EmptyPolicy, ...] = ("worst", "detected")


@dataclass(frozen=True)
class RegionErrors:
    """Errors where confidence is low or high, or where it is deep.

    Attributes:
        title: Which region.
        values: A row per participant, a column per model.
    """

    title: str
    values: pd.DataFrame


@dataclass(frozen=True)
class Calibration:
    """Calibration of the models' probabilities.

    Attributes:
        participants: ``ece``, ``ace`` and ``brier`` by model, calibration and participant.
        chance: By model and calibration, the mean ECE that a perfectly calibrated model would hardly exceed.
    """

    participants: pd.DataFrame
    chance: pd.Series


@dataclass(frozen=True)
class Results:
    """What is computed from finished experiments for a report.

    Attributes:
        runs: What was read.
        comparisons: Those that were planned.
    """

    runs: Runs
    comparisons: Sequence[Comparison]

    @property
    def unit(self) -> str:
        """Unit of distances."""
        return str(self.runs.rows["unit"].iloc[0])

    @cached_property
    def summaries(self) -> dict[EmptyPolicy, pd.DataFrame]:
        """Means and spreads of every model, class and metric under every policy of empty masks."""
        return {policy: summarise(self.runs.rows, policy) for policy in POLICIES}

    @cached_property
    def participants(self) -> dict[str, pd.DataFrame]:
        """By metric, every participant's value of every model, mean over classes."""
        return {metric: participant_values(self.runs.rows, metric) for metric in COMPARED}

    @cached_property
    def errors(self) -> dict[str, RegionErrors]:
        """Errors of every region by its name; empty where they were not measured."""
        levels = self.runs.levels
        if levels.empty:
            return {}
        return {
            name: RegionErrors(title, participant_errors(levels, within))
            for name, (title, within) in regions(levels).items()
        }

    @cached_property
    def profiles(self) -> dict[str, pd.DataFrame]:
        """Mean error by level of confidence and of depth, as far as they were measured."""
        levels = self.runs.levels
        measured = set() if levels.empty else set(levels["by"])
        return {by: error_profile(levels, by) for by in ("confidence", "depth") if by in measured}

    @cached_property
    def quantities(self) -> dict[str, ComparedQuantity]:
        """The planned comparisons of every quantity that can be compared."""
        values = {name: (METRICS[name].heading(self.unit), self.participants[name]) for name in COMPARED}
        values |= {f"error_{name}": (f"error where {error.title}", error.values) for name, error in self.errors.items()}
        compared = [compare_quantity(name, *of_name, self.comparisons) for name, of_name in values.items()]
        return {quantity.name: quantity for quantity in compared if quantity is not None}

    @cached_property
    def calibration(self) -> Calibration | None:
        """Calibration of all models; None where it was not measured."""
        rows = self.runs.calibration
        return None if rows.empty else Calibration(participant_calibration(rows), chance_calibration(rows))

    @cached_property
    def epochs_to_converge(self) -> dict[str, float]:
        """Of every model that kept its learning curves, the mean number of epochs until 95 % of the best Dice."""
        epochs = {
            model: [_epochs_to_converge(curve) for curve in self.runs.learning_curves(model)]
            for model in self.runs.folders
        }
        return {model: sum(numbers) / len(numbers) for model, numbers in epochs.items() if numbers}

    @cached_property
    def differing_settings(self) -> pd.DataFrame:
        """A row per model, a column per setting that differs; empty with one model, or where settings were not kept."""
        settings = {model: self.runs.settings(model) for model in self.runs.folders}
        if len(settings) < 2 or not all(settings.values()):
            return pd.DataFrame()
        return differing_settings(settings)

    def ranked(self, metric: str) -> pd.DataFrame:
        """Give the values that models are ranked by: of participants that all have, without post-processing.

        Args:
            metric: Which metric.

        Returns:
            A row per participant, a column per model.
        """
        plain = [model for model in self.participants[metric] if model in self.runs.folders]
        return self.participants[metric][plain].dropna()


def _epochs_to_converge(curve: pd.Series) -> int:
    """Number of epochs until a validation curve first reaches 95 % of its best value."""
    return int((curve >= 0.95 * curve.max()).to_numpy().argmax()) + 1
