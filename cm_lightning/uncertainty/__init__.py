"""How sure a network is."""

from cm_lightning.uncertainty.mc_dropout import active_dropout, mc_dropout_probabilities

__all__ = ["active_dropout", "mc_dropout_probabilities"]
