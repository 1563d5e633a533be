"""Predictive uncertainty of networks and variability of raters."""

from cm_lightning.uncertainty.agreement import EnergyDistance, energy_distance
from cm_lightning.uncertainty.boundary import (
    BoundaryDeviation,
    between_rater_sd,
    boundary_deviation,
    boundary_sd,
    within_rater_sd,
)
from cm_lightning.uncertainty.mc_dropout import MCDropout, SampledPrediction, entropy, sample_dropout, seeded_dropout
from cm_lightning.uncertainty.raters import agreement, label_distribution, majority, pairwise_dice, staple
from cm_lightning.uncertainty.temperature import draw_voxels, fit_temperature

__all__ = [
    "BoundaryDeviation",
    "EnergyDistance",
    "MCDropout",
    "SampledPrediction",
    "agreement",
    "between_rater_sd",
    "boundary_deviation",
    "boundary_sd",
    "draw_voxels",
    "energy_distance",
    "entropy",
    "fit_temperature",
    "label_distribution",
    "majority",
    "pairwise_dice",
    "sample_dropout",
    "seeded_dropout",
    "staple",
    "within_rater_sd",
]
