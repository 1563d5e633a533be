"""Metrics of one case per class, on its native grid: the eight metrics of the study and further metrics."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import edt
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cm_lightning.data.ignored import is_known
from cm_lightning.errors import InputError

# Number of voxels of which the classes are counted at a time.
CONFUSION_VOXELS = 2**20


@dataclass(frozen=True)
class Metric:
    """Properties of a metric.

    Attributes:
        title: Name in tables.
        higher_is_better: Whether higher values are better.
        kind: ``ratio``, ``distance`` (in the unit of the spacing), ``area`` (in the squared unit) or ``count``.
        in_study: Whether it is one of the eight metrics of the study.
        needs_probabilities: Whether it is computed from class probabilities, and therefore also defined for empty
            masks; see :mod:`cm_lightning.metrics.calibration`.
    """

    title: str
    higher_is_better: bool
    kind: Literal["ratio", "distance", "area", "count"] = "ratio"
    in_study: bool = False
    needs_probabilities: bool = False

    def heading(self, unit: str) -> str:
        """Return the title with the unit of the metric, if it has one.

        Args:
            unit: Unit of the spacing, "mm" or "px".

        Returns:
            Heading such as "HD (mm)".
        """
        return self.title + {"distance": f" ({unit})", "area": f" ({unit}²)"}.get(self.kind, "")


METRICS: dict[str, Metric] = {
    "dice": Metric("DSC", True, in_study=True),
    "iou": Metric("IoU", True, in_study=True),
    "precision": Metric("precision", True, in_study=True),
    "recall": Metric("recall", True, in_study=True),
    "asd": Metric("ASD", False, "distance", in_study=True),
    "hd": Metric("HD", False, "distance", in_study=True),
    "miss_rate": Metric("miss rate", False, in_study=True),
    "fall_out": Metric("fall-out", False, in_study=True),
    "hd95": Metric("HD95", False, "distance"),
    "nsd": Metric("NSD", True),
    "islands": Metric("islands", False, "count"),
    "volume_error": Metric("volume error", False),
    "csa_error": Metric("CSA error", False, "area"),
    "ece": Metric("ECE", False, needs_probabilities=True),
    "ace": Metric("ACE", False, needs_probabilities=True),
    "brier": Metric("Brier", False, needs_probabilities=True),
}

Row = dict[str, Any]
Mask = NDArray[np.bool_]
# Tolerance of the surface Dice of a class, in the unit of the spacing, if no other is set.
NSD_TOLERANCE = 2.0
# Margin of comparisons with the tolerance, relative to it: distances are computed in float32.
ROUNDING = 1e-6
# Columns of the numbers of voxels of a class.
VOXELS = ["true_positive", "false_positive", "false_negative", "true_negative", "pred_voxels", "truth_voxels"]


def case_rows(
    prediction: Tensor,
    label: Tensor,
    class_names: Sequence[str],
    spacing: Sequence[float],
    tolerance: float | Mapping[str, float] = NSD_TOLERANCE,
    probability_metrics: pd.DataFrame | None = None,
    **columns: Any,
) -> list[Row]:
    """Compute the metrics of one case.

    Counts are int64 and ratios are float64, so that they are also accurate for volumes with more than 2^24 voxels.
    Besides Dice, IoU, precision, recall, miss rate and fall-out, the metrics are:

    * ``asd``, ``hd`` and ``hd95``: mean, maximum and 95th percentile of the distances between the edge voxels of both
      masks. Mean and maximum are over the pooled distances of both directions; ``hd95`` is the larger of the
      percentiles of the two directions, as in MONAI. Edge voxels have a face at the outside of the mask; the border of
      the image is outside.
    * ``nsd``: normalised surface Dice, the fraction of the edge voxels of both masks within ``tolerance`` of the other
      edge. A distance that equals the tolerance but for rounding errors is within it.
    * ``islands``: number of connected components (by faces, edges or corners) of the prediction minus those of the
      label or 1, whichever is larger; 0 if negative.
    * ``volume_error``: absolute relative error of the volume (in 2D, of the area).
    * ``csa_error``: mean absolute error of the cross-sectional area, over all frames with the class in the prediction
      or in the label.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        class_names: Names of the classes 1, 2, ...; the background is not measured.
        spacing: Voxel size along every axis, which defines the unit of distances and areas.
        tolerance: Tolerance of ``nsd``, in the unit of the spacing, for all classes or by the name of the class.
        probability_metrics: Metrics of the probabilities with one row per class, from
            :func:`cm_lightning.metrics.calibration.calibration_errors`; None leaves them out.
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        One row per class and metric, with the ``value`` (NaN if undefined), the flags ``pred_empty`` and
        ``truth_empty``, the ``diagonal`` of the image in the unit of the spacing, the ``tolerance``, and the numbers of
        voxels of the class in :data:`VOXELS`. See :func:`cm_lightning.metrics.apply_empty_policy` for empty masks.

    Raises:
        InputError: The shapes differ.

    References:
        Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy: deep learning
        algorithm development and validation study", JMIR 2021, for the normalised surface Dice.
    """
    if prediction.shape != label.shape:
        raise InputError(
            f"The prediction has the shape {tuple(prediction.shape)} and the label has the shape {tuple(label.shape)}; "
            "expected equal shapes."
        )
    confusion = confusion_counts(prediction, label, len(class_names) + 1)
    diagonal = math.hypot(*(n * step for n, step in zip(label.shape, spacing, strict=True)))
    tolerances = tolerance_by_class(class_names, tolerance)
    rows = []
    for (index, name), masks in zip(
        enumerate(class_names, start=1), _class_masks(prediction, label, len(class_names)), strict=True
    ):
        values = {
            **_overlap(confusion, index),
            **_distances(*masks, spacing, tolerances[name]),
            **_shape_errors(*masks, spacing),
        }
        if probability_metrics is not None:
            class_values = probability_metrics.loc[[name]].to_numpy()[0].tolist()
            values |= dict(zip(probability_metrics.columns, class_values, strict=True))
        flags = {
            "pred_empty": not confusion[:, index].any(),
            "truth_empty": not confusion[index, :].any(),
            "diagonal": diagonal,
            "tolerance": tolerances[name],
            **dict(zip(VOXELS, _voxels(confusion, index), strict=True)),
        }
        rows += [
            {**columns, "class": name, "metric": metric, "value": values[metric], **flags}
            for metric in METRICS
            if metric in values
        ]
    return rows


def tolerance_by_class(class_names: Sequence[str], tolerance: float | Mapping[str, float]) -> dict[str, float]:
    """Return the tolerance of the surface Dice for every class.

    Args:
        class_names: Names of the classes 1, 2, ...
        tolerance: A tolerance for all classes, or by the name of the class; :data:`NSD_TOLERANCE` for other classes.

    Returns:
        Tolerances by class, in the unit of the spacing.

    Raises:
        InputError: There is no such class, or a tolerance is negative or not finite.
    """
    given = tolerance if isinstance(tolerance, Mapping) else dict.fromkeys(class_names, tolerance)
    unknown = sorted(set(given) - set(class_names))
    if unknown:
        raise InputError(f"nsd_tolerance names the class {unknown[0]!r}; expected some of {', '.join(class_names)}.")
    tolerances = {name: float(given.get(name, NSD_TOLERANCE)) for name in class_names}
    for name, value in tolerances.items():
        if not 0 <= value < math.inf:
            raise InputError(f"nsd_tolerance of {name} is {value:g}; expected a distance of 0 or more.")
    return tolerances


def dice_per_class(prediction: Tensor, label: Tensor, classes: int) -> list[float]:
    """Compute the Dice coefficients of one case.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        classes: Number of classes including the background.

    Returns:
        Dice of the classes 1, 2, ...; NaN if a class is in neither of the two.
    """
    dice = []
    for index in range(1, classes):
        pred, target = prediction == index, label == index
        dice.append(_ratio(2 * int((pred & target).sum()), int(pred.sum()) + int(target.sum())))
    return dice


def study_metrics(
    prediction: Tensor, label: Tensor, classes: int, spacing: Sequence[float] | None = None
) -> list[dict[str, float]]:
    """Compute only the metrics of the study for one case, which is fast enough for every validation.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        classes: Number of classes including the background.
        spacing: Voxel size along every axis, which defines the unit of distances; None leaves out ``asd`` and ``hd``,
            which take much longer.

    Returns:
        Values by name for each of the classes 1, 2, ..., as defined in :func:`case_rows`; NaN if undefined.
    """
    confusion = confusion_counts(prediction, label, classes)
    metrics = [_overlap(confusion, index) for index in range(1, classes)]
    if spacing is not None:
        for values, masks in zip(metrics, _class_masks(prediction, label, classes - 1), strict=True):
            distances = _distances(*masks, spacing, tolerance=0.0)
            values |= {name: distances[name] for name in ("asd", "hd")}
    return metrics


def confusion_counts(prediction: Tensor, label: Tensor, classes: int) -> NDArray[np.int64]:
    """Compute the confusion matrix of the voxels whose label is known.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        classes: Number of classes including the background.

    Returns:
        Number of voxels of every pair of classes, ``[label, prediction]``, ``(classes, classes)``.
    """
    # Some rows at a time, since the int64 indices of a volume of the calf would take 4 GB.
    rows = max(1, CONFUSION_VOXELS * len(label) // max(1, label.numel()))
    counts = torch.zeros(classes**2, dtype=torch.int64, device=label.device)
    for target, pred in zip(torch.split(label, rows), torch.split(prediction, rows), strict=True):
        counts += torch.bincount((target.long() * classes + pred)[is_known(target)], minlength=classes**2)
    confusion: NDArray[np.int64] = counts.reshape(classes, classes).cpu().numpy()
    return confusion


def _overlap(confusion: NDArray[np.int64], index: int) -> dict[str, float]:
    true_positive, false_positive, false_negative, true_negative, *_ = _voxels(confusion, index)
    recall = _ratio(true_positive, true_positive + false_negative)
    return {
        "dice": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "iou": _ratio(true_positive, true_positive + false_positive + false_negative),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": recall,
        "miss_rate": 1.0 - recall,
        "fall_out": _ratio(false_positive, false_positive + true_negative),
    }


def _voxels(confusion: NDArray[np.int64], index: int) -> tuple[int, int, int, int, int, int]:
    """Return the numbers of voxels of a class in the order of :data:`VOXELS`."""
    true_positive, predicted = int(confusion[index, index]), int(confusion[:, index].sum())
    labelled = int(confusion[index, :].sum())
    true_negative = int(confusion.sum()) - predicted - labelled + true_positive
    return true_positive, predicted - true_positive, labelled - true_positive, true_negative, predicted, labelled


def _class_masks(prediction: Tensor, label: Tensor, classes: int) -> Iterator[tuple[Mask, Mask]]:
    """Yield both masks of each class, cropped to the box that contains them; distances are not measured elsewhere.

    Boxes include every frame (along elevation) only where the class is; without the class, masks have no voxels.
    """
    segmentations = [
        mask.to(torch.int16).cpu().numpy() if mask.dtype != torch.uint8 else mask.cpu().numpy()
        for mask in (prediction, label)
    ]
    boxes = [ndimage.find_objects(mask, max_label=classes) for mask in segmentations]
    for index, pair in enumerate(zip(*boxes, strict=True), start=1):
        known = [box for box in pair if box is not None]
        if not known:
            empty: Mask = np.zeros((0,) * label.ndim, dtype=np.bool_)
            yield empty, empty
            continue
        box = tuple(
            slice(min(part.start for part in sides), max(part.stop for part in sides))
            for sides in zip(*known, strict=True)
        )
        first, second = (mask[box] == index for mask in segmentations)
        yield first, second


def _distances(prediction: Mask, label: Mask, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    """Compute the metrics of edge distances; NaN if a mask is empty."""
    if not (prediction.any() and label.any()):
        return dict.fromkeys(("asd", "hd", "hd95", "nsd"), math.nan)
    edges = [_edge(mask) for mask in (prediction, label)]
    # Distances of the edge voxels of each mask to the nearest edge voxel of the other one.
    directions = [
        edt.edt(~other, anisotropy=tuple(spacing), parallel=os.cpu_count())[edge].astype(np.float64)
        for edge, other in (edges, reversed(edges))
    ]
    both = np.concatenate(directions)
    return {
        "asd": float(both.mean()),
        "hd": float(both.max()),
        "hd95": float(max(np.percentile(distance, 95) for distance in directions)),
        "nsd": float((both <= tolerance * (1 + ROUNDING)).mean()),
    }


def _edge(mask: Mask) -> Mask:
    """Return the voxels of a mask with a face at its outside, which includes the border of the array."""
    return mask & ~ndimage.binary_erosion(mask)


def _shape_errors(prediction: Mask, label: Mask, spacing: Sequence[float]) -> dict[str, float]:
    """Compute errors of the number of components, the volume and the cross-sectional area."""
    # A class that is missing in the prediction has no islands, which must not count as a good result.
    islands = _components(prediction) - max(1, _components(label)) if prediction.any() else math.nan
    areas = [np.atleast_1d(mask.sum(axis=(0, 1), dtype=np.int64)) for mask in (prediction, label)]
    volumes = [int(area.sum()) for area in areas]
    frames = (areas[0] > 0) | (areas[1] > 0)
    pixel = spacing[0] * spacing[1]
    difference = np.abs(areas[0] - areas[1])[frames]
    return {
        "islands": islands if math.isnan(islands) else float(max(0, islands)),
        "volume_error": _ratio(abs(volumes[0] - volumes[1]), volumes[1]),
        "csa_error": pixel * float(difference.mean()) if len(difference) else math.nan,
    }


def _components(mask: Mask) -> int:
    """Count the connected components of a mask."""
    return int(ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[1]) if mask.size else 0


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
