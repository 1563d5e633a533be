"""Classes of a segmentation, and the values in the label files of which they consist."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.data.description import IGNORED, described_labels, read_description
from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.errors import InputError

# Value of every class in the label files, or several values that are merged into one class. The name ``ignore`` is no
# class: its voxels have no known label.
ClassValues = Mapping[str, int | list[int]]

EXAMPLE = "--data.classes '{nerve: 1, vessel: [2, 3]}'"
# Names with another meaning in tables and metrics, and what Python calls values that YAML does not read as text.
RESERVED_NAMES = {"mean", "background", "true", "false", "none", "nan"}
# Largest difference from a whole number that is an error of a stored slope, such as in 1.00000006.
ROUNDING = 1e-3


def label_values(classes: ClassValues) -> dict[str, tuple[int, ...]]:
    """Return all values of every class, and of the voxels to ignore."""
    return {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in classes.items()}


def written_values(classes: ClassValues) -> dict[str, int]:
    """Return the value of every class in predicted segmentations, which is the first one of its values."""
    return {name: values[0] for name, values in label_values(classes).items() if name != IGNORED}


def class_indices(classes: ClassValues) -> dict[str, int]:
    """Return the index of every class, 1, 2, ..., and of the voxels to ignore, 255."""
    indices = {name: index for index, name in enumerate(written_values(classes), start=1)}
    return indices if IGNORED not in classes else {**indices, IGNORED: IGNORED_INDEX}


def check_classes(classes: ClassValues) -> None:
    """Check that every class has its own label values.

    Args:
        classes: Value, or values, of every class in the label files.

    Raises:
        InputError: There is no class, a name is reserved, two classes have the same value, or a class has the value 0
            of the background.
    """
    for key in classes:
        name = str(key)  # YAML may have read a truth value or nothing
        is_word = isinstance(key, str) and name.strip() == name != ""
        if not is_word or name.lower() in RESERVED_NAMES:
            raise InputError(
                f"data.classes contains the name {name!r}, which is reserved, or which YAML reads as a number, a truth "
                f"value or nothing unless it is quoted; expected another name, as in {EXAMPLE}."
            )
        if "/" in name or "\\" in name or not name.isprintable():
            raise InputError(
                f"data.classes contains the name {name!r}; expected a name without slashes and control characters, "
                "since names of files and metrics contain it."
            )
    values = [value for several in label_values(classes).values() for value in (several or (0,))]
    if not classes.keys() - {IGNORED} or 0 in values or len(set(values)) < len(values):
        raise InputError(
            f"data.classes must map every class to label values other than 0 that no other class has, as in {EXAMPLE}; "
            f"found {dict(classes)}."
        )


def resolve_classes(classes: ClassValues | None, root: Path, layout: str) -> ClassValues:
    """Return the classes of a data set, which data sets of nnU-Net describe themselves.

    Args:
        classes: Classes of the configuration, or None for those in ``dataset.json``.
        root: Folder of the data set.
        layout: Its layout.

    Returns:
        Value, or values, of every class in the label files.

    Raises:
        InputError: There are none, or regions of nnU-Net share a value.
    """
    if classes is not None:
        return classes
    labels = described_labels(read_description(root)) if layout == "nnunet" else []
    described = {name: value for name, value in labels if name != "background" and value != 0}
    if not described.keys() - {IGNORED}:
        raise InputError(
            f"data.classes is not set, and {root} has no dataset.json of nnU-Net with labels; expected the value of "
            f"every class in the label files, as in {EXAMPLE}. The command inspect lists the values in the labels."
        )
    if not all(_is_value(value) for value in described.values()):
        raise InputError(f"{root / 'dataset.json'} contains the labels {described}; expected whole numbers.")
    values = [value for several in label_values(described).values() for value in several]
    if len(set(values)) < len(values):
        raise InputError(
            f"{root / 'dataset.json'} describes regions that share values: {described}; expected classes without "
            f"overlap. Set data.classes instead, as in {EXAMPLE}."
        )
    return described


def whole_numbers(label: NDArray[np.generic], path: Path) -> NDArray[np.generic]:
    """Round the values of a label that differ from whole numbers by the rounding of a stored slope, such as 1.00000006.

    Args:
        label: Values of any shape.
        path: The file, for the error message.

    Returns:
        Whole numbers.

    Raises:
        InputError: A value is no whole number.
    """
    if label.dtype.kind != "f":
        return label
    values: NDArray[Any] = np.rint(label)
    different = ~(np.abs(label - values) <= ROUNDING)  # also true for NaN
    if different.any():
        example = float(label[different].flat[0])
        raise InputError(f"The label {path} contains the value {example:.6g}; expected whole numbers.")
    if np.abs(values).max(initial=0) > np.iinfo(np.int32).max:
        raise InputError(f"The label {path} contains the value {np.abs(values).max():.6g}; expected class numbers.")
    return values.astype(np.int32)


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_value(item) for item in value)
    return isinstance(value, int) and not isinstance(value, bool)
