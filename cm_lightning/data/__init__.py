"""Data module with cases, folder layouts, patient-wise splits, augmentation and the phantom."""

from cm_lightning.data.augmentation import Augmentation
from cm_lightning.data.datamodule import UltrasoundDataModule
from cm_lightning.data.phantom import Phantom

__all__ = ["Augmentation", "Phantom", "UltrasoundDataModule"]
