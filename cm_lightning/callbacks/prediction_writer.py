"""Writing of predictions as image files with the geometry of their input."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Batch
from cm_lightning.io import is_picture, read_image, write_nifti
from cm_lightning.uncertainty import entropy

QUANTITIES = (
    "probabilities",
    "entropy",
    "expected_entropy",
    "mutual_information",
    "variance",
    "votes",
    "confidence",
    "predicted_confidence",
)


class PredictionWriter(BasePredictionWriter):
    """Callback that writes the segmentation, class probabilities, entropy and confidence map of predicted cases.

    Segmentations contain the values of the label files. All predictions are NIfTI files with the affine of the image
    file, except for the segmentations of 2D image files without physical coordinates (such as PNG), which are PNG
    files. With MC dropout, expected entropy, mutual information, variance, votes and sampled segmentations are written
    as well, where ``sample01`` is the most plausible sample, and ``<case>_samples.csv`` contains the plausibilities.
    The display range in the header of a quantity is the same for all cases.

    Args:
        folder: Output folder; ``predictions`` in the folder of the run by default.
        maps: Whether to write class probabilities, entropies (in nats), mutual information, variance, votes and
            confidence maps in addition to the segmentation.
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
        """Write the files of one case."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, UltrasoundDataModule)
        folder = self.folder or fold_folder(trainer).predictions
        folder.mkdir(parents=True, exist_ok=True)
        image_file = next(case.image for case in data.cases_of("predict") if case.id == prediction["case"])
        affine = read_image(image_file).affine
        _remove_earlier(folder, prediction["case"])
        values = np.array([0, *data.classes.values()])
        to_file_axes = data.axes.to_file

        def write(name: str, array: NDArray[Any], display_range: tuple[float, float] | None = None) -> None:
            write_nifti(folder / f"{prediction['case']}_{name}.nii.gz", array, affine, display_range)

        def write_segmentation(name: str, indices: Tensor) -> None:
            segmentation = to_file_axes(values.astype(np.min_scalar_type(int(values.max())))[indices.cpu().numpy()])
            if is_picture(image_file) and segmentation.ndim == 2:
                Image.fromarray(segmentation).save(folder / f"{prediction['case']}_{name}.png")
            else:
                write(name, segmentation)

        write_segmentation("segmentation", prediction["segmentation"])
        for number, sample in enumerate(prediction.get("sampled_segmentations", []), start=1):
            write_segmentation(f"sample{number:02d}", sample)
        if prediction.get("sampled_segmentations"):
            plausibility = pd.Series(prediction["plausibility"].tolist(), name="plausibility")
            plausibility.index = pd.RangeIndex(1, len(plausibility) + 1, name="sample")
            plausibility.to_csv(folder / f"{prediction['case']}_samples.csv")
        if not self.maps:
            return
        maps = {**prediction, "entropy": prediction.get("entropy", entropy(prediction["probabilities"].float(), dim=0))}
        for name in QUANTITIES:
            if name in maps:
                highest = _highest(name, prediction, len(values))
                array = maps[name].float().cpu().numpy()
                if array.ndim > len(data.axes.names):
                    write(name, np.stack([to_file_axes(channel) for channel in array], axis=-1), (0.0, highest))
                else:
                    write(name, to_file_axes(array), (0.0, highest))


def _highest(name: str, prediction: Batch, classes: int) -> float:
    """Return the largest possible value of a quantity, which viewers show as white."""
    match name:
        case "entropy" | "expected_entropy" | "mutual_information":
            return math.log(classes)
        case "variance":
            return 0.25
        case "votes":
            return float(prediction["votes"].sum(dim=0).max())
        case _:
            return 1.0


def _remove_earlier(folder: Path, case: str) -> None:
    """Remove the files of an earlier prediction of a case, which may have had other settings."""
    written = re.compile(
        rf"{re.escape(case)}_({'|'.join([*QUANTITIES, 'segmentation', 'samples'])}|sample\d+)\.\w+(\.gz)?"
    )
    for path in folder.iterdir():
        if written.fullmatch(path.name):
            path.unlink()
