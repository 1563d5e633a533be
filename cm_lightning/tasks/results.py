"""Results of a test, which are measured per case, gathered from all processes and returned as long tables."""

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

# Columns that identify a row of each table.
ROW_KEYS = ["case", "class", "metric", "postprocessing"]
LEVEL_KEYS = ["case", "class", "by", "level"]
CALIBRATION_KEYS = ["case", "class", "bin", "calibration"]


@dataclass(frozen=True)
class NativeCase:
    """One test case on the grid of its file.

    Attributes:
        case: Id of the case.
        patient: Id of the patient, or of another group of cases.
        grouping: Kind of the groups, such as "patient".
        unit: Unit of the spacing, "mm" or "px".
        spacing: Voxel size along every axis.
        label: Class indices, ``(depth, lateral[, elevation])``.
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``.
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
        """Create a case from a batch.

        Args:
            batch: A batch of one case from the data module's test set.
            grouping: Kind of the groups of cases.

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
        rows: One row per case, class, metric and post-processing; see :func:`cm_lightning.metrics.case_rows`.
        levels: Counts of correct and wrong voxels by level of confidence and by depth; see
            :func:`cm_lightning.metrics.levels.level_rows`.
        calibration: Sums over voxels by class and bin of probability; see
            :func:`cm_lightning.metrics.calibration.calibration_rows`.
    """

    rows: pd.DataFrame
    levels: pd.DataFrame
    calibration: pd.DataFrame


class ResultCollector:
    """Collector that measures test cases one by one, and gathers the results of all processes.

    Args:
        class_names: Names of the classes 1, 2, ...
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self._rows: list[Row] = []
        self._levels: list[Row] = []
        self._calibration: list[Row] = []

    def add_probabilities(self, case: NativeCase, probabilities: Iterable[Tensor], calibration: str) -> pd.DataFrame:
        """Measure the calibration of the probabilities of one case.

        Args:
            case: The case.
            probabilities: Probabilities of the classes 1, 2, ..., ``(depth, lateral[, elevation])`` each.
            calibration: Calibration method of these probabilities, "none" or "temperature".

        Returns:
            Calibration errors with one row per class; see
            :func:`cm_lightning.metrics.calibration.calibration_errors`.
        """
        columns = {"case": case.case, "patient": case.patient, "calibration": calibration}
        rows = calibration_rows(probabilities, case.label, self.class_names, case.domain, **columns)
        self._calibration += rows
        return calibration_errors(pd.DataFrame(rows), ["class"])

    def add_segmentation(
        self, case: NativeCase, segmentation: Tensor, postprocessing: str, errors: pd.DataFrame | None = None
    ) -> None:
        """Measure the segmentation of one case.

        Args:
            case: The case.
            segmentation: Class indices, ``(depth, lateral[, elevation])``.
            postprocessing: Post-processing of this segmentation, "none" or "largest component".
            errors: Calibration errors of the corresponding probabilities; None leaves them out.
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
        """Count correct and wrong voxels of one case by depth and, if there is a confidence map, by confidence.

        Args:
            case: The case.
            segmentation: Class indices, ``(depth, lateral[, elevation])``.
            confidence: Confidence map of the image from 0 to 1, ``(depth, lateral[, elevation])``.
        """
        levels = {"depth": depth_levels(case.domain)}
        if confidence is not None:
            levels["confidence"] = confidence_levels(confidence, case.domain)
        columns = {"case": case.case, "patient": case.patient}
        self._levels += level_rows(segmentation, case.label, self.class_names, levels, **columns)

    def gather(self) -> ResultTables:
        """Gather the rows of all processes, and remove them from this collector.

        The distributed sampler repeats cases so that all processes get the same number. Repeated cases are counted
        once.

        Returns:
            The tables, equal on all processes.
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
