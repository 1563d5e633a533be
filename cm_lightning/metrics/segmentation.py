"""The metrics of one case, per class, in the case's own geometry: the study's eight and those beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from monai.metrics.utils import get_edge_surface_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cm_lightning.errors import InputError


@dataclass(frozen=True)
class Metric:
    """What is to be known of a metric.

    Attributes:
        title: Its name in tables.
        higher_is_better: Whether more is better.
        kind: ``ratio``, ``distance`` (in the unit of the spacing), ``area`` (in its square) or ``count``.
        in_study: Whether it is one of the study's eight.
        needs_probabilities: Whether it judges the class probabilities, so that it is defined whether or not a class is
            there or was found; see :mod:`cm_lightning.metrics.calibration`.
    """

    title: str
    higher_is_better: bool
    kind: Literal["ratio", "distance", "area", "count"] = "ratio"
    in_study: bool = False
    needs_probabilities: bool = False

    def heading(self, unit: str) -> str:
        """Give the title with its unit, where it has one.

        Args:
            unit: Of the spacing, "mm" or "px".

        Returns:
            For example "HD (mm)".
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


def case_rows(
    prediction: Tensor,
    label: Tensor,
    class_names: Sequence[str],
    spacing: Sequence[float],
    tolerance: float = 2.0,
    needs_probabilities: pd.DataFrame | None = None,
    **about: Any,
) -> list[Row]:
    """Measure one case.

    Counts are int64 and ratios float64, so that nothing is lost on volumes above 2^24 voxels. Distances are between the
    masks' edge voxels, both ways, on the array's device:

    * ``asd``: mean of all distances, of both directions together; ``hd``: the largest; ``hd95``: the larger of the two
      directions' 95th percentiles, as in MONAI.
    * ``nsd``: normalised surface Dice (Nikolov et al. 2021), the share of edge voxels nearer than ``tolerance``.
    * ``islands``: connected components of the prediction (touching by a face, an edge or a corner) beyond those of the
      label, which count as one where there is none.
    * ``volume_error``: relative error of the volume (in 2D, of the area), absolute.
    * ``csa_error``: mean absolute error of the cross-sectional area over the frames in which the class is, in the
      prediction or the label.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices of the same shape.
        class_names: Names of the classes 1, 2, ...; background is not measured.
        spacing: Voxel size along every axis; distances are in its unit.
        tolerance: Of ``nsd``, in the unit of the spacing.
        needs_probabilities: Metrics of the probabilities, a row per class, as
            :func:`cm_lightning.metrics.calibration.calibration_errors` gives them; None where there are none.
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
    confusion = confusion_counts(prediction, label, len(class_names) + 1)
    diagonal = math.hypot(*(n * step for n, step in zip(label.shape, spacing, strict=True)))
    rows = []
    for index, name in enumerate(class_names, start=1):
        here, there = prediction == index, label == index
        values = {
            **_overlap(confusion, index),
            **_distances(here, there, spacing, tolerance),
            **_shape_errors(here, there, spacing),
        }
        if needs_probabilities is not None:
            measured = needs_probabilities.loc[[name]].to_numpy()[0].tolist()
            values |= dict(zip(needs_probabilities.columns, measured, strict=True))
        flags = {
            "pred_empty": not confusion[:, index].any(),
            "truth_empty": not confusion[index, :].any(),
            "diagonal": diagonal,
        }
        rows += [
            {**about, "class": name, "metric": metric, "value": values[metric], **flags}
            for metric in METRICS
            if metric in values
        ]
    return rows


def dice_per_class(prediction: Tensor, label: Tensor, classes: int) -> list[float]:
    """Dice of the classes 1, 2, ... of one case; NaN where a class is in neither."""
    found = []
    for index in range(1, classes):
        here, there = prediction == index, label == index
        found.append(_ratio(2 * int((here & there).sum()), int(here.sum()) + int(there.sum())))
    return found


def study_metrics(
    prediction: Tensor, label: Tensor, classes: int, spacing: Sequence[float] | None = None
) -> list[dict[str, float]]:
    """Measure one case by the study's metrics alone, as :func:`case_rows` defines them: often, during training.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices of the same shape.
        classes: Their number, with the background.
        spacing: Voxel size along every axis; without it, ``asd`` and ``hd``, which take far longer, are left out.

    Returns:
        Of each of the classes 1, 2, ..., values by name; NaN where one is undefined.
    """
    confusion = confusion_counts(prediction, label, classes)
    found = []
    for index in range(1, classes):
        values = _overlap(confusion, index)
        if spacing is not None:
            distances = _distances(prediction == index, label == index, spacing, tolerance=0.0)
            values |= {name: distances[name] for name in ("asd", "hd")}
        found.append(values)
    return found


def confusion_counts(prediction: Tensor, label: Tensor, classes: int) -> NDArray[np.int64]:
    """Count the voxels of every pair of classes.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices of the same shape.
        classes: Their number, with the background.

    Returns:
        ``[label, prediction]``.
    """
    # Row by row: as int64, all pairs of a volume of the calf would take 4 GB.
    counts = torch.zeros(classes**2, dtype=torch.int64, device=label.device)
    for truth, guess in zip(label, prediction, strict=True):
        counts += torch.bincount((truth.long() * classes + guess).flatten(), minlength=classes**2)
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
    """Distances between edges; NaN where a mask is empty."""
    if not (prediction.any() and label.any()):
        return dict.fromkeys(("asd", "hd", "hd95", "nsd"), math.nan)
    _, found, _ = get_edge_surface_distance(
        prediction, label, distance_metric="euclidean", spacing=list(spacing), symmetric=True
    )
    one_way = [distance.double().cpu().numpy() for distance in found]
    both = np.concatenate(one_way)
    return {
        "asd": float(both.mean()),
        "hd": float(both.max()),
        "hd95": float(max(np.percentile(distance, 95) for distance in one_way)),
        "nsd": float((both <= tolerance).mean()),
    }


def _shape_errors(prediction: Tensor, label: Tensor, spacing: Sequence[float]) -> dict[str, float]:
    """Errors in number of parts, volume and cross-section."""
    # A class that was lost has no islands, which must not count as good.
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
    """Count the connected components of a mask, in its bounding box."""
    array = mask.cpu().numpy()
    box = ndimage.find_objects(array.astype(np.uint8))
    if not box or box[0] is None:
        return 0
    return int(ndimage.label(array[box[0]], structure=np.ones((3,) * array.ndim))[1])


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
