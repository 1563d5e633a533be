"""Results of a test: measured case by case, gathered over processes, and given as long tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import pandas as pd
from torch import Tensor

from cm_lightning.data.augmentation import Batch
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.calibration import calibration_errors, calibration_rows
from cm_lightning.metrics.levels import confidence_levels, depth_levels, level_rows
from cm_lightning.metrics.segmentation import Row
from cm_lightning.tasks.distributed import gather_objects
from cm_lightning.tasks.native import to_native

# Columns that tell the rows of each table apart.
ROW_KEYS = ["case", "class", "metric", "postprocessing"]
LEVEL_KEYS = ["case", "class", "by", "level"]
CALIBRATION_KEYS = ["case", "class", "bin", "calibration"]


@dataclass(frozen=True)
class NativeCase:
    """One case of a test, in its file's geometry.

    Attributes:
        case: The case's id.
        patient: The patient's id, or that of another group of cases.
        grouping: What groups cases, such as "patient".
        unit: Unit of the spacing.
        spacing: Voxel size along every axis.
        label: Class indices, ``(depth, lateral[, elevation])``.
        domain: Which voxels are insonified, bool, of that shape.
    """

    case: str
    patient: str
    grouping: str
    unit: str
    spacing: Sequence[float]
    label: Tensor
    domain: Tensor

    @classmethod
    def from_batch(cls, batch: Batch, grouping: str) -> Self:
        """Take the case from a batch of its own.

        Args:
            batch: A batch of one case, as the data module gives it for ``test``.
            grouping: What groups cases.

        Returns:
            The case.
        """
        return cls(
            case=batch["case"][0],
            patient=batch["patient"][0],
            grouping=grouping,
            unit=batch["unit"][0],
            spacing=batch["native_spacing"][0].tolist(),
            label=batch["native_label"][0, 0],
            domain=next(to_native(batch["domain"], batch)) > 0.5,
        )


class ResultTables(NamedTuple):
    """Long tables of a test.

    Attributes:
        rows: A row per case, class, metric and post-processing; see :func:`cm_lightning.metrics.case_rows`.
        levels: Counts of right and wrong voxels by level of confidence and by depth; see
            :func:`cm_lightning.metrics.levels.level_rows`.
        calibration: Sums over the voxels of every class by their probability; see
            :func:`cm_lightning.metrics.calibration.calibration_rows`.
    """

    rows: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame


class ResultCollector:
    """Measures the cases of a test one after another, and joins what all processes have measured.

    Args:
        class_names: Names of the classes 1, 2, ...
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self._rows: list[Row] = []
        self._levels: list[Row] = []
        self._calibration: list[Row] = []

    def add_probabilities(self, case: NativeCase, probabilities: Iterable[Tensor], calibration: str) -> pd.DataFrame:
        """Measure the calibration of one case's probabilities.

        Args:
            case: The case.
            probabilities: Probability of the classes 1, 2, ..., each ``(depth, lateral[, elevation])``.
            calibration: How they were calibrated: "none" or "temperature".

        Returns:
            Calibration errors, a row per class; see :func:`cm_lightning.metrics.calibration.calibration_errors`.
        """
        about = {"case": case.case, "patient": case.patient, "calibration": calibration}
        rows = calibration_rows(probabilities, case.label, self.class_names, case.domain, **about)
        self._calibration += rows
        return calibration_errors(pd.DataFrame(rows), ["class"])

    def add_segmentation(
        self, case: NativeCase, segmentation: Tensor, postprocessing: str, errors: pd.DataFrame | None = None
    ) -> None:
        """Measure one case's segmentation.

        Args:
            case: The case.
            segmentation: Class indices, ``(depth, lateral[, elevation])``.
            postprocessing: What was done with it: "none" or "largest component".
            errors: Calibration errors of the probabilities that it was made from; None where there are none.
        """
        self._rows += case_rows(
            segmentation,
            case.label,
            self.class_names,
            case.spacing,
            probability_metrics=errors,
            case=case.case,
            patient=case.patient,
            grouping=case.grouping,
            unit=case.unit,
            postprocessing=postprocessing,
        )

    def add_levels(self, case: NativeCase, segmentation: Tensor, confidence: Tensor | None) -> None:
        """Count right and wrong voxels of one case by depth and, where there is a map, by confidence.

        Args:
            case: The case.
            segmentation: Class indices, ``(depth, lateral[, elevation])``.
            confidence: Confidence map of the case's own image, of that shape.
        """
        levels = {"depth": depth_levels(case.domain)}
        if confidence is not None:
            levels["confidence"] = confidence_levels(confidence, case.domain)
        about = {"case": case.case, "patient": case.patient}
        self._levels += level_rows(segmentation, case.label, self.class_names, levels, **about)

    def gather(self) -> ResultTables:
        """Join the rows of all processes, keep each case once, and begin anew.

        The sampler of several processes repeats cases to fill the last batch.

        Returns:
            The tables, the same on every process.
        """
        tables = ResultTables(
            _unique(gather_objects(self._rows), ROW_KEYS),
            _unique(gather_objects(self._levels), LEVEL_KEYS),
            _unique(gather_objects(self._calibration), CALIBRATION_KEYS),
        )
        self._rows, self._levels, self._calibration = [], [], []
        return tables


def _unique(rows: list[Row], keys: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows).drop_duplicates(keys).reset_index(drop=True)
