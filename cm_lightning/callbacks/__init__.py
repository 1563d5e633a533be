"""Callbacks, one job each."""

from cm_lightning.callbacks.confidence_cost import ConfidenceCost
from cm_lightning.callbacks.image_sampler import ImageSampler, SampledImage
from cm_lightning.callbacks.pictures import AugmentationPicture, SegmentationPictures, WorstCasePictures
from cm_lightning.callbacks.prediction_writer import PredictionWriter
from cm_lightning.callbacks.result_table import ResultTable
from cm_lightning.callbacks.uncertainty_pictures import UncertaintyPictures

__all__ = [
    "AugmentationPicture",
    "ConfidenceCost",
    "ImageSampler",
    "PredictionWriter",
    "ResultTable",
    "SampledImage",
    "SegmentationPictures",
    "UncertaintyPictures",
    "WorstCasePictures",
]
