"""What was measured on all images."""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage
from cm_lightning.variability.rater_measures import Boundary

Key = tuple[str, int]  # a case's id and a frame
QUESTIONS = {
    "sd": "boundary SD of the labels, given depth",
    "entropy": "entropy of the labels, given depth and distance to the boundary",
}


class ShownImage(NamedTuple):
    """An image for the page.

    Attributes:
        frame: The image and its labels.
        sampled: What the first seed of every model says of it.
    """

    frame: Frame
    sampled: dict[str, SampledImage]


@dataclass(frozen=True)
class Variability:
    """What was measured on all images.

    Attributes:
        class_names: Names of the classes 1, 2, ...
        unit: Of distances.
        deepest: Depth of the deepest frame.
        shown: An image of every patient by case and frame.
        boundaries: Points of the consensus' boundaries, where labels are repeated.
        measures: Long table by model, seed, patient, case, frame and measure.
        raters: The same of the labels alone; empty without repeated labels.
        profiles: Means by depth, by model, seed, patient, case, frame, quantity and part.
        bins: Reliability by model, seed, patient, case, frame and bin.
        convergence: Difference of the entropy to that of all samples, a column for every number of samples.
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
        """Every patient's value of every model: the mean over images and seeds."""
        rows = self.measures[self.measures["measure"] == measure]
        means = rows.groupby(["model", "patient"], sort=False)["value"].mean().unstack("model")
        return means.reindex(columns=self.models)

    def rater_values(self, measure: str) -> pd.Series:
        """Every patient's value of what is measured on the labels alone: the mean over images."""
        rows = self.raters[self.raters["measure"] == measure]
        return rows.groupby("patient", sort=False)["value"].mean()
