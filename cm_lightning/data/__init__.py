"""Cases, folder layouts, patient-wise splits, augmentation, the phantom, and the data module that joins them."""

from cm_lightning.data.augmentation import Augmentation
from cm_lightning.data.datamodule import UltrasoundDataModule
from cm_lightning.data.phantom import Phantom

__all__ = ["Augmentation", "Phantom", "UltrasoundDataModule"]
