"""Trained networks without a trainer: predictions in Python, ensembles, and export."""

from cm_lightning.inference.ensemble import EnsembleCheck, find_members
from cm_lightning.inference.loading import TrainedTask, load_task
from cm_lightning.inference.predictor import PredictedImage, Predictor

__all__ = ["EnsembleCheck", "PredictedImage", "Predictor", "TrainedTask", "find_members", "load_task"]
