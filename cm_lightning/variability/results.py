"""Measurements on all images."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cm_lightning.evaluation.comparison import over_seeds, participant_folds
from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage
from cm_lightning.variability.rater_measures import Boundary

# Id of a case and index of a frame.
Key = tuple[str, int]


class RaterMeasure(NamedTuple):
    """Measure of rater variability that is correlated with confidence.

    Attributes:
        title: Name of the measure in tables and figures.
        covariates: Quantities for which the correlation is adjusted.
    """

    title: str
    covariates: str


CORRELATIONS = {
    "sd": RaterMeasure("boundary SD of the labels (primary)", "depth, class and orientation"),
    "entropy": RaterMeasure("entropy of the labels (secondary)", "depth, class, orientation and distance"),
}


class ShownImage(NamedTuple):
    """An image that is shown on the page.

    Attributes:
        frame: Image and labels.
        sampled: Samples of the first seed of each model, by model.
    """

    frame: Frame
    sampled: dict[str, SampledImage]


@dataclass(frozen=True)
class Variability:
    """Measurements on all images.

    Attributes:
        class_names: Names of the classes 1, 2, ...
        unit: Unit of distances.
        deepest: Depth of the deepest frame, in ``unit``.
        shown: One image per patient, by case and frame.
        boundaries: Boundary points of the consensus by case and frame; empty without repeated labels.
        measures: Long table of the measures of networks, by model, seed, fold, patient, case, frame and measure.
        raters: Long table of the measures of labels, by patient, case, frame and measure; empty without repeated
            labels.
        profiles: Long table of means over depth, by model, seed, patient, case, frame, quantity and part of the depth.
        bins: Long table of reliability, by model, seed, patient, case, frame and bin.
        convergence: Mean absolute difference between the entropy of the first n samples and that of all samples in
            nats,
            with one column per n, by model, seed, patient, case and frame.
    """

    class_names: list[str]
    unit: str
    deepest: float
    shown: dict[Key, ShownImage]
    boundaries: dict[Key, Boundary]
    measures: pd.DataFrame
    raters: pd.DataFrame
    profiles: pd.DataFrame
    bins: pd.DataFrame
    convergence: pd.DataFrame

    @property
    def models(self) -> list[str]:
        """All models, in the order of the folders."""
        return list(dict.fromkeys(self.measures["model"]))

    def values(self, measure: str) -> pd.DataFrame:
        """Return a measure with one row per patient and one column per model, averaged over images and seeds."""
        return over_seeds(self.by_seed(measure))

    def by_seed(self, measure: str) -> pd.DataFrame:
        """Return a measure with one row per patient and one column per model and seed, averaged over images."""
        rows = self.measures[self.measures["measure"] == measure]
        means = rows.groupby(["model", "seed", "patient"], sort=False)["value"].mean().unstack(["model", "seed"])
        runs = self.measures[["model", "seed"]].drop_duplicates()
        return means.reindex(index=self.measures["patient"].unique(), columns=pd.MultiIndex.from_frame(runs))

    @property
    def folds(self) -> pd.DataFrame:
        """Fold of every patient by model and seed."""
        return participant_folds(self.measures)

    def rater_values(self, measure: str) -> pd.Series:
        """Return a measure of rater variability by patient, averaged over images."""
        rows = self.raters[self.raters["measure"] == measure]
        return rows.groupby("patient", sort=False)["value"].mean()
