"""How sure a network is, and how far raters differ."""

from cm_lightning.uncertainty.mc_dropout import MCDropout, SampledPrediction, entropy, sample_dropout, seeded_dropout
from cm_lightning.uncertainty.temperature import draw_voxels, fit_temperature

__all__ = [
    "MCDropout",
    "SampledPrediction",
    "draw_voxels",
    "entropy",
    "fit_temperature",
    "sample_dropout",
    "seeded_dropout",
]
