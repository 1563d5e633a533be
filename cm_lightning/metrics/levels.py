"""Correct and wrong voxels by level of confidence and by depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# Number of levels: tenths of the confidence, or of the insonified depth.
LEVELS = 10

Row = dict[str, Any]


def confidence_levels(confidence: Tensor, domain: Tensor) -> Tensor:
    """Divide confidence into ten levels.

    Args:
        confidence: Confidence map from 0 to 1, ``(depth, lateral[, elevation])``.
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``.

    Returns:
        Levels 0 to 9, int8, ``(depth, lateral[, elevation])``; -1 outside the domain.
    """
    levels = torch.full_like(domain, -1, dtype=torch.int8)
    # Rows are processed one by one, since float32 or int64 levels of a volume of the calf would take gigabytes.
    for level, values, inside in zip(levels, confidence, domain, strict=True):
        level[inside] = (values[inside] * LEVELS).clamp_(0, LEVELS - 1).to(torch.int8)
    return levels


def depth_levels(domain: Tensor) -> Tensor:
    """Divide the insonified depth of every column into ten levels.

    Args:
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``.

    Returns:
        Levels from 0 (at the first insonified row of the column) to 9 (at the last one), int8, ``(depth, lateral[,
        elevation])``; -1 outside the domain.
    """
    levels = torch.full_like(domain, -1, dtype=torch.int8)
    first = domain.to(torch.uint8).argmax(dim=0)
    length = domain.sum(dim=0, dtype=torch.int32).clamp_min(1)
    for row, (level, inside) in enumerate(zip(levels, domain, strict=True)):
        level[inside] = ((row - first) * LEVELS // length).clamp_(0, LEVELS - 1)[inside].to(torch.int8)
    return levels


def level_rows(
    prediction: Tensor, label: Tensor, class_names: Sequence[str], levels: Mapping[str, Tensor], **columns: Any
) -> list[Row]:
    """Count correct and wrong voxels of every class by level.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        class_names: Names of the classes 1, 2, ...
        levels: Levels of all voxels by the name of their quantity ("confidence" or "depth"), ``(depth, lateral[,
            elevation])`` each; voxels with level -1 are not counted.
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        One row per quantity (``by``), ``class`` and ``level``, with the counts ``true_positive``, ``false_positive``
        and ``false_negative``. Levels without voxels of the class have rows of zeros.
    """
    rows = []
    for quantity, level in levels.items():
        inside = level >= 0
        for index, name in enumerate(class_names, start=1):
            pred, target = (prediction == index) & inside, (label == index) & inside
            counts = {
                key: torch.bincount(level[chosen], minlength=LEVELS).tolist()
                for key, chosen in (
                    ("true_positive", pred & target),
                    ("false_positive", pred & ~target),
                    ("false_negative", ~pred & target),
                )
            }
            rows += [
                {
                    **columns,
                    "class": name,
                    "by": quantity,
                    "level": number,
                    **{key: counts[key][number] for key in counts},
                }
                for number in range(LEVELS)
            ]
    return rows
