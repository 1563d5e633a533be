"""Callbacks for metrics, result tables, pictures and predictions."""

from cm_lightning.callbacks.augmentation_picture import AugmentationPicture
from cm_lightning.callbacks.best_score import BestScore
from cm_lightning.callbacks.confidence_cost import ConfidenceCost
from cm_lightning.callbacks.log_position import LogPosition
from cm_lightning.callbacks.prediction_writer import PredictionWriter
from cm_lightning.callbacks.progress import EpochLines, RunProgressBar
from cm_lightning.callbacks.result_pictures import CaseTable, ConfusionPicture, ReliabilityPicture
from cm_lightning.callbacks.result_table import ResultTable
from cm_lightning.callbacks.resuming import Resuming
from cm_lightning.callbacks.segmentation_pictures import SegmentationPictures
from cm_lightning.callbacks.throughput import Throughput
from cm_lightning.callbacks.uncertainty_pictures import UncertaintyPictures
from cm_lightning.callbacks.validation_metrics import ValidationMetrics
from cm_lightning.callbacks.worst_case_pictures import WorstCasePictures

__all__ = [
    "AugmentationPicture",
    "BestScore",
    "CaseTable",
    "ConfidenceCost",
    "ConfusionPicture",
    "EpochLines",
    "LogPosition",
    "PredictionWriter",
    "ReliabilityPicture",
    "ResultTable",
    "Resuming",
    "RunProgressBar",
    "SegmentationPictures",
    "Throughput",
    "UncertaintyPictures",
    "ValidationMetrics",
    "WorstCasePictures",
]
