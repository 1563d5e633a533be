"""The study's eight metrics of one case, per class, in the case's own geometry."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

from cm_lightning.errors import InputError

# Name, whether more is better, and whether it is a distance.
METRICS: dict[str, tuple[bool, bool]] = {
    "dice": (True, False),
    "iou": (True, False),
    "precision": (True, False),
    "recall": (True, False),
    "asd": (False, True),
    "hd": (False, True),
    "miss_rate": (False, False),
    "fall_out": (False, False),
}

Row = dict[str, Any]


def case_rows(
    prediction: Tensor, label: Tensor, class_names: Sequence[str], spacing: Sequence[float], **about: Any
) -> list[Row]:
    """Measure one case.

    Counts are int64 and ratios float64, so that nothing is lost on volumes above 2^24 voxels. ``asd`` is the symmetric
    average surface distance and ``hd`` the Hausdorff distance, between the masks' edge voxels.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices of the same shape.
        class_names: Names of the classes 1, 2, ...; background is not measured.
        spacing: Voxel size along every axis; distances are in its unit.
        **about: Columns that every row carries, such as the case and its patient.

    Returns:
        A row per class and metric, with the raw ``value``, the flags ``pred_empty`` and ``truth_empty``, and the length
        of the image's ``diagonal``. The value is NaN where it is undefined; :mod:`cm_lightning.metrics.empty` says
        what becomes of it.

    Raises:
        InputError: The shapes differ.
    """
    if prediction.shape != label.shape:
        raise InputError(f"prediction and label must have one shape, found {prediction.shape} and {label.shape}.")
    classes = len(class_names) + 1
    # Row by row: as int64, all pairs of a volume of the calf would take 4 GB.
    counts = torch.zeros(classes**2, dtype=torch.int64, device=label.device)
    for truth, guess in zip(label, prediction, strict=True):
        counts += torch.bincount((truth.long() * classes + guess).flatten(), minlength=classes**2)
    confusion = counts.reshape(classes, classes).cpu().numpy()
    diagonal = math.hypot(*(n * step for n, step in zip(label.shape, spacing, strict=True)))
    rows = []
    for index, name in enumerate(class_names, start=1):
        true_positive = int(confusion[index, index])
        false_positive = int(confusion[:, index].sum()) - true_positive
        false_negative = int(confusion[index, :].sum()) - true_positive
        true_negative = int(confusion.sum()) - true_positive - false_positive - false_negative
        asd, hd = _surface_distances(prediction == index, label == index, spacing)
        recall = _ratio(true_positive, true_positive + false_negative)
        values = {
            "dice": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
            "iou": _ratio(true_positive, true_positive + false_positive + false_negative),
            "precision": _ratio(true_positive, true_positive + false_positive),
            "recall": recall,
            "asd": asd,
            "hd": hd,
            "miss_rate": 1.0 - recall,
            "fall_out": _ratio(false_positive, false_positive + true_negative),
        }
        flags = {
            "pred_empty": true_positive + false_positive == 0,
            "truth_empty": true_positive + false_negative == 0,
            "diagonal": diagonal,
        }
        rows += [
            {**about, "class": name, "metric": metric, "value": value, **flags} for metric, value in values.items()
        ]
    return rows


def dice_per_class(prediction: Tensor, label: Tensor, classes: int) -> list[float]:
    """Dice of the classes 1, 2, ... of one case; NaN where a class is in neither."""
    found = []
    for index in range(1, classes):
        here, there = prediction == index, label == index
        found.append(_ratio(2 * int((here & there).sum()), int(here.sum()) + int(there.sum())))
    return found


def _surface_distances(prediction: Tensor, label: Tensor, spacing: Sequence[float]) -> tuple[float, float]:
    """Symmetric average and largest distance between edges; NaN where a mask is empty."""
    if not (prediction.any() and label.any()):
        return math.nan, math.nan
    _, distances, _ = get_edge_surface_distance(
        prediction, label, distance_metric="euclidean", spacing=list(spacing), symmetric=True
    )
    both = np.concatenate([distance.double().cpu().numpy() for distance in distances])
    return float(both.mean()), float(both.max())


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
