"""Metrics of one case per class, on its native grid: the eight metrics of the study and further metrics."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import edt
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cm_lightning.errors import InputError


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
# Relative rounding errors of distances, which are computed in float32.
ROUNDING = 1e-6


def case_rows(
    prediction: Tensor,
    label: Tensor,
    class_names: Sequence[str],
    spacing: Sequence[float],
    tolerance: float = 2.0,
    probability_metrics: pd.DataFrame | None = None,
    **columns: Any,
) -> list[Row]:
    """Compute the metrics of one case.

    Counts are int64 and ratios are float64, so that they are also accurate for volumes with more than 2^24 voxels.
    Besides Dice, IoU, precision, recall, miss rate and fall-out, the metrics are:

    * ``asd``, ``hd`` and ``hd95``: mean, maximum and 95th percentile of the distances between the edge voxels of both
      masks. Mean and maximum are over the distances in both directions; ``hd95`` is the larger of the percentiles in
      both directions, as in MONAI.
    * ``nsd``: normalised surface Dice, the fraction of the edge voxels of both masks within ``tolerance`` of the other
      edge.
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
        tolerance: Tolerance of ``nsd``, in the unit of the spacing.
        probability_metrics: Metrics of the probabilities with one row per class, from
            :func:`cm_lightning.metrics.calibration.calibration_errors`; None leaves them out.
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        One row per class and metric, with the ``value`` (NaN if undefined), the flags ``pred_empty`` and
        ``truth_empty``, and the ``diagonal`` of the image in the unit of the spacing. See
        :func:`cm_lightning.metrics.apply_empty_policy` for empty masks.

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
    rows = []
    for index, name in enumerate(class_names, start=1):
        pred, target = prediction == index, label == index
        values = {
            **_overlap(confusion, index),
            **_distances(pred, target, spacing, tolerance),
            **_shape_errors(pred, target, spacing),
        }
        if probability_metrics is not None:
            class_values = probability_metrics.loc[[name]].to_numpy()[0].tolist()
            values |= dict(zip(probability_metrics.columns, class_values, strict=True))
        flags = {
            "pred_empty": not confusion[:, index].any(),
            "truth_empty": not confusion[index, :].any(),
            "diagonal": diagonal,
        }
        rows += [
            {**columns, "class": name, "metric": metric, "value": values[metric], **flags}
            for metric in METRICS
            if metric in values
        ]
    return rows


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
    metrics = []
    for index in range(1, classes):
        values = _overlap(confusion, index)
        if spacing is not None:
            distances = _distances(prediction == index, label == index, spacing, tolerance=0.0)
            values |= {name: distances[name] for name in ("asd", "hd")}
        metrics.append(values)
    return metrics


def confusion_counts(prediction: Tensor, label: Tensor, classes: int) -> NDArray[np.int64]:
    """Compute the confusion matrix.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        classes: Number of classes including the background.

    Returns:
        Number of voxels of every pair of classes, ``[label, prediction]``, ``(classes, classes)``.
    """
    # Rows are processed one by one, since the int64 indices of a volume of the calf would take 4 GB.
    counts = torch.zeros(classes**2, dtype=torch.int64, device=label.device)
    for target, pred in zip(label, prediction, strict=True):
        counts += torch.bincount((target.long() * classes + pred).flatten(), minlength=classes**2)
    confusion: NDArray[np.int64] = counts.reshape(classes, classes).cpu().numpy()
    return confusion


def _overlap(confusion: NDArray[np.int64], index: int) -> dict[str, float]:
    true_positive = int(confusion[index, index])
    false_positive = int(confusion[:, index].sum()) - true_positive
    false_negative = int(confusion[index, :].sum()) - true_positive
    true_negative = int(confusion.sum()) - true_positive - false_positive - false_negative
    recall = _ratio(true_positive, true_positive + false_negative)
    return {
        "dice": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
        "iou": _ratio(true_positive, true_positive + false_positive + false_negative),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": recall,
        "miss_rate": 1.0 - recall,
        "fall_out": _ratio(false_positive, false_positive + true_negative),
    }


def _distances(prediction: Tensor, label: Tensor, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    """Compute the metrics of edge distances; NaN if a mask is empty."""
    if not (prediction.any() and label.any()):
        return dict.fromkeys(("asd", "hd", "hd95", "nsd"), math.nan)
    masks = [mask.cpu().numpy() for mask in (prediction, label)]
    (box,) = ndimage.find_objects((masks[0] | masks[1]).view(np.uint8))
    edges = [_edge(mask[box]) for mask in masks]
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


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a mask with a face at its outside, which includes the border of the array."""
    return mask & ~ndimage.binary_erosion(mask)


def _shape_errors(prediction: Tensor, label: Tensor, spacing: Sequence[float]) -> dict[str, float]:
    """Compute errors of the number of components, the volume and the cross-sectional area."""
    # A class that is missing in the prediction has no islands, which must not count as a good result.
    islands = _components(prediction) - max(1, _components(label)) if prediction.any() else math.nan
    areas = [mask.sum(dim=(0, 1), dtype=torch.int64).reshape(-1) for mask in (prediction, label)]
    volumes = [int(area.sum()) for area in areas]
    frames = (areas[0] > 0) | (areas[1] > 0)
    pixel = spacing[0] * spacing[1]
    difference = (areas[0] - areas[1]).abs()[frames].double()
    return {
        "islands": islands if math.isnan(islands) else float(max(0, islands)),
        "volume_error": _ratio(abs(volumes[0] - volumes[1]), volumes[1]),
        "csa_error": pixel * float(difference.mean()) if len(difference) else math.nan,
    }


def _components(mask: Tensor) -> int:
    """Count the connected components of a mask, within its bounding box."""
    array = mask.cpu().numpy()
    box = ndimage.find_objects(array.astype(np.uint8))
    if not box or box[0] is None:
        return 0
    return int(ndimage.label(array[box[0]], structure=np.ones((3,) * array.ndim))[1])


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
