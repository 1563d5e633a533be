"""Predictions as image files in the geometry of their input."""

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
    """Write segmentation, class probabilities, entropy and confidence map of every case that ``predict`` sees.

    Segmentations carry the values of the label files. A volume's files are NIfTI with its affine; a picture's
    segmentation is a PNG, its maps NIfTI. With MC dropout there are also expected entropy, mutual information, variance
    and votes, and where they were kept the sampled segmentations, ``sample01`` being the most plausible;
    ``samples.csv`` says how plausible. Every quantity has one range of display in its header, the same for all cases.

    Args:
        folder: Where to; ``predictions`` in the run's folder by default.
        maps: Also write probabilities, entropies (in nats) and the others named above, and confidence.
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
        folder = self.folder or fold_folder(trainer).predictions
        folder.mkdir(parents=True, exist_ok=True)
        image_file = next(case.image for case in data.cases_of("predict") if case.id == prediction["case"])
        affine = read_image(image_file).affine
        _remove_earlier(folder, prediction["case"])
        values = np.array([0, *data.classes.values()])
        in_file_order = data.axes.to_file

        def write(name: str, array: NDArray[Any], display_range: tuple[float, float] | None = None) -> None:
            write_nifti(folder / f"{prediction['case']}_{name}.nii.gz", array, affine, display_range)

        def write_segmentation(name: str, indices: Tensor) -> None:
            segmentation = in_file_order(values.astype(np.min_scalar_type(int(values.max())))[indices.cpu().numpy()])
            if is_picture(image_file):
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
                    write(name, np.stack([in_file_order(of_class) for of_class in array], axis=-1), (0.0, highest))
                else:
                    write(name, in_file_order(array), (0.0, highest))


def _highest(name: str, prediction: Batch, classes: int) -> float:
    """The value of a quantity that viewers show as white: the largest that it can have."""
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
    """Remove what an earlier prediction wrote of a case: maps of two settings would contradict one another."""
    written = re.compile(
        rf"{re.escape(case)}_({'|'.join([*QUANTITIES, 'segmentation', 'samples'])}|sample\d+)\.\w+(\.gz)?"
    )
    for path in folder.iterdir():
        if written.fullmatch(path.name):
            path.unlink()
