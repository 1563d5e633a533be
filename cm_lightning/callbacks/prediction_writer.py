"""Predictions as image files in the geometry of their input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter

from cm_lightning.callbacks.pictures import run_folder
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.data.images import is_picture, read_image, write_nifti


class PredictionWriter(BasePredictionWriter):
    """Write segmentation, class probabilities, entropy and confidence map of every case that ``predict`` sees.

    Segmentations carry the values of the label files. A volume's files are NIfTI with its affine; a picture's
    segmentation is a PNG, its maps NIfTI.

    Args:
        folder: Where to; ``predictions`` in the run's folder by default.
        maps: Also write probabilities, entropy (in nats, of the class probabilities) and confidence.
    """

    def __init__(self, folder: Path | None = None, maps: bool = True) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.maps = maps

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Batch,
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one case's files."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, UltrasoundDataModule)
        folder = self.folder or run_folder(trainer) / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        image_file = next(case.image for case in data.cases_of("predict") if case.id == prediction["case"])
        affine = read_image(image_file).affine
        probabilities = prediction["probabilities"].float().cpu().numpy()
        values = np.array([0, *data.classes.values()])
        segmentation = values.astype(np.min_scalar_type(int(values.max())))[prediction["segmentation"].cpu().numpy()]

        def write(name: str, array: NDArray[Any]) -> None:
            write_nifti(folder / f"{prediction['case']}_{name}.nii.gz", array, affine)

        in_file_order = data.axes.to_file
        if is_picture(image_file):
            Image.fromarray(in_file_order(segmentation)).save(folder / f"{prediction['case']}_segmentation.png")
        else:
            write("segmentation", in_file_order(segmentation))
        if self.maps:
            write("probabilities", np.stack([in_file_order(p) for p in probabilities], axis=-1))
            entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0)
            write("entropy", in_file_order(entropy.astype(np.float32)))
            for name in ("confidence", "predicted_confidence"):
                if name in prediction:
                    write(name, in_file_order(prediction[name].float().cpu().numpy()))
