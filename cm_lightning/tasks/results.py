"""Results of a test, which are measured per case, gathered from all processes and returned as long tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from cm_lightning.data.augmentation import Batch
from cm_lightning.data.ignored import is_known, known_only
from cm_lightning.metrics import case_rows
from cm_lightning.metrics.calibration import calibration_errors, calibration_sums, rows_of_sums
from cm_lightning.metrics.levels import confidence_levels, depth_levels, level_counts, rows_of_counts
from cm_lightning.metrics.segmentation import NSD_TOLERANCE, Row, tolerance_by_class
from cm_lightning.tasks.distributed import gather_objects

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
        label: Class indices, ``(depth, lateral[, elevation])``; 255 for voxels that are not counted.
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
            domain=batch["native_domain"][0, 0],
        )

    def part(self, frames: range) -> Self:
        """Return some frames of this case.

        Args:
            frames: Consecutive indices along elevation; ignored for a 2D image.

        Returns:
            The case with label and domain of these frames, ``(depth, lateral[, frames])`` each.
        """
        if self.label.ndim == 2:
            return self
        span = slice(frames.start, frames.stop)
        return replace(self, label=self.label[..., span], domain=self.domain[..., span])


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

    Probabilities and levels of a case may be added in parts, before its segmentation ends the case.

    Args:
        class_names: Names of the classes 1, 2, ...
        nsd_tolerance: Tolerance of the surface Dice, in the unit of the spacing, for all classes or by class.

    Raises:
        InputError: A tolerance is invalid.
    """

    def __init__(self, class_names: Sequence[str], nsd_tolerance: float | Mapping[str, float] = NSD_TOLERANCE) -> None:
        self.class_names = list(class_names)
        self.nsd_tolerance = tolerance_by_class(class_names, nsd_tolerance)
        self._rows: list[Row] = []
        self._levels: list[Row] = []
        self._calibration: list[Row] = []
        # Sums of the current case, by calibration method, and its counts by quantity.
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}

    def add_probabilities(self, case: NativeCase, probabilities: Iterable[Tensor], calibration: str) -> None:
        """Measure the calibration of the probabilities of the current case, or of a part of it.

        Args:
            case: The case, or a part of it.
            probabilities: Probabilities of the classes 1, 2, ..., ``(depth, lateral[, elevation])`` each.
            calibration: Calibration method of these probabilities, "none" or "temperature".
        """
        sums = calibration_sums(probabilities, case.label, case.domain & is_known(case.label))
        self._sums[calibration] = self._sums.get(calibration, 0) + sums

    def add_levels(self, case: NativeCase, segmentation: Tensor, confidence: Tensor | None) -> None:
        """Count correct and wrong voxels of the current case, or of a part of it.

        They are counted by depth and, if there is a confidence map, by confidence.

        Args:
            case: The case, or a part of it.
            segmentation: Class indices, ``(depth, lateral[, elevation])``.
            confidence: Confidence map of the image from 0 to 1, ``(depth, lateral[, elevation])``.
        """
        levels = {"depth": depth_levels(case.domain)}
        if confidence is not None:
            levels["confidence"] = confidence_levels(confidence, case.domain)
        label, segmentation = known_only(case.label, segmentation)
        for quantity, level in levels.items():
            counts = level_counts(segmentation, label, len(self.class_names), level)
            self._counts[quantity] = self._counts.get(quantity, 0) + counts

    def end_case(self, case: NativeCase, segmentations: Mapping[str, Tensor]) -> None:
        """Measure the segmentations of the current case, and end it.

        Args:
            case: The case.
            segmentations: Class indices by their post-processing, "none" or "largest component", ``(depth, lateral[,
                elevation])`` each. Errors of probabilities belong to "none".
        """
        columns: Row = {"case": case.case, "patient": case.patient}
        for calibration, sums in self._sums.items():
            self._calibration += rows_of_sums(sums, self.class_names, **columns, calibration=calibration)
        errors = None
        if "none" in self._sums:
            errors = calibration_errors(pd.DataFrame(rows_of_sums(self._sums["none"], self.class_names)), ["class"])
        self._levels += rows_of_counts(self._counts, self.class_names, **columns)
        label, *known = known_only(case.label, *segmentations.values())
        for postprocessing, segmentation in zip(segmentations, known, strict=True):
            self._rows += case_rows(
                segmentation,
                label,
                self.class_names,
                case.spacing,
                self.nsd_tolerance,
                probability_metrics=errors if postprocessing == "none" else None,
                **columns,
                grouping=case.grouping,
                unit=case.unit,
                postprocessing=postprocessing,
            )
        self._sums, self._counts = {}, {}

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
