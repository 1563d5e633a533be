"""Correct and wrong voxels by level of confidence and by depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Number of levels: tenths of the confidence, or of the insonified depth.
LEVELS = 10
COUNTS = ["true_positive", "false_positive", "false_negative"]

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
        tenths = values.nan_to_num().mul(LEVELS).clamp_(0, LEVELS - 1).to(torch.int8)
        level.copy_(tenths.masked_fill_(~inside, -1))  # several times as fast as indexing with the domain
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
        tenths = ((row - first) * LEVELS).div_(length, rounding_mode="floor").clamp_(0, LEVELS - 1).to(torch.int8)
        level.copy_(tenths.masked_fill_(~inside, -1))
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
    classes = len(class_names)
    counts = {quantity: level_counts(prediction, label, classes, level) for quantity, level in levels.items()}
    return rows_of_counts(counts, class_names, **columns)


def level_counts(prediction: Tensor, label: Tensor, classes: int, level: Tensor) -> NDArray[np.int64]:
    """Count correct and wrong voxels of a case, or of a part of it. Counts of parts can be added.

    Args:
        prediction: Class indices, ``(depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        classes: Number of classes without the background.
        level: Levels of all voxels, ``(depth, lateral[, elevation])``; voxels with level -1 are not counted.

    Returns:
        The counts of :func:`level_rows` in the order of ``COUNTS``, ``(classes, levels, 3)``.
    """
    # One table of [level + 1, label, prediction] is counted at once; rows are processed one by one to save memory.
    names = classes + 1
    cells = torch.zeros((LEVELS + 1) * names**2, dtype=torch.int64, device=label.device)
    for pred, target, row in zip(prediction, label, level, strict=True):
        index = (((row.int() + 1) * names + target) * names + pred).flatten()
        cells += torch.bincount(index, minlength=len(cells))
    table = cells.reshape(LEVELS + 1, names, names).cpu().numpy()[1:]
    correct = np.diagonal(table, axis1=1, axis2=2)
    counts = np.stack([correct, table.sum(axis=1) - correct, table.sum(axis=2) - correct], axis=-1)
    return counts.transpose(1, 0, 2)[1:]


def rows_of_counts(counts: Mapping[str, NDArray[np.int64]], class_names: Sequence[str], **columns: Any) -> list[Row]:
    """Arrange the counts of one case as rows.

    Args:
        counts: Counts of :func:`level_counts` by the name of the quantity, ``(classes, levels, 3)`` each.
        class_names: Names of the classes 1, 2, ...
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        Rows of :func:`level_rows`.
    """
    return [
        {**columns, "class": name, "by": quantity, "level": level, **dict(zip(COUNTS, values, strict=True))}
        for quantity, by_class in counts.items()
        for name, by_level in zip(class_names, by_class.tolist(), strict=True)
        for level, values in enumerate(by_level)
    ]
