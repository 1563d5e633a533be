"""Where in a case a segmentation is wrong: counts by level of confidence and by depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LEVELS = 10  # tenths of confidence, and of the insonified depth

Row = dict[str, Any]


def confidence_levels(confidence: Tensor, domain: Tensor) -> Tensor:
    """Sort voxels by their confidence.

    Args:
        confidence: Confidence map in [0, 1], ``(depth, lateral[, elevation])``.
        domain: Which voxels are insonified, of the same shape.

    Returns:
        Level 0 to 9 of every voxel, int8; -1 outside the domain.
    """
    levels = torch.full_like(domain, -1, dtype=torch.int8)
    # Row by row: as float32 or int64, all levels of a volume of the calf would take gigabytes.
    for level, values, inside in zip(levels, confidence, domain, strict=True):
        level[inside] = (values[inside] * LEVELS).clamp_(0, LEVELS - 1).to(torch.int8)
    return levels


def depth_levels(domain: Tensor) -> Tensor:
    """Sort voxels by their depth below the first insonified row of their column.

    Args:
        domain: Which voxels are insonified, ``(depth, lateral[, elevation])``.

    Returns:
        Level 0 (at the probe) to 9 (at the last insonified row) of every voxel, int8; -1 outside the domain. A column
        of a linear or a convex probe's frame begins where its domain does.
    """
    levels = torch.full_like(domain, -1, dtype=torch.int8)
    first = domain.to(torch.uint8).argmax(dim=0)
    length = domain.sum(dim=0, dtype=torch.int32).clamp_min(1)
    for row, (level, inside) in enumerate(zip(levels, domain, strict=True)):
        level[inside] = ((row - first) * LEVELS // length).clamp_(0, LEVELS - 1)[inside].to(torch.int8)
    return levels


def level_rows(
    prediction: Tensor, label: Tensor, class_names: Sequence[str], levels: Mapping[str, Tensor], **about: Any
) -> list[Row]:
    """Count right and wrong voxels of every class by level.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices of the same shape.
        class_names: Names of the classes 1, 2, ...
        levels: What voxels are sorted by ("confidence", "depth"), and the level of every voxel, -1 for none.
        **about: Columns that every row carries, such as the case and its patient.

    Returns:
        A row per kind of level, level and class, with the counts ``true_positive``, ``false_positive`` and
        ``false_negative``; levels that hold none of either mask have rows of zeros.
    """
    rows = []
    for by, level in levels.items():
        inside = level >= 0
        for index, name in enumerate(class_names, start=1):
            here, there = (prediction == index) & inside, (label == index) & inside
            counts = {
                key: torch.bincount(level[chosen], minlength=LEVELS).tolist()
                for key, chosen in (
                    ("true_positive", here & there),
                    ("false_positive", here & ~there),
                    ("false_negative", ~here & there),
                )
            }
            rows += [
                {**about, "class": name, "by": by, "level": number, **{key: counts[key][number] for key in counts}}
                for number in range(LEVELS)
            ]
    return rows
