"""How sure a network is."""

from cm_lightning.uncertainty.mc_dropout import MCDropout, SampledPrediction, entropy, sample_dropout, seeded_dropout

__all__ = ["MCDropout", "SampledPrediction", "entropy", "sample_dropout", "seeded_dropout"]
