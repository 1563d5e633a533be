"""Repeated labels of an image by one or several raters, in the files ``ratersTr/CASE/<rater>_<repeat>.ext``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.data.cases import Case, read_label
from cm_lightning.data.classes import ClassValues
from cm_lightning.data.ignored import IGNORED_INDEX
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io import Axes, image_files, read_image, stem
from cm_lightning.io.file_image import without_values

RATER_FOLDER = "ratersTr"
RATER_PATTERN = r"(?P<rater>.+?)(_(?P<repeat>[0-9]+))?"


@dataclass(frozen=True)
class RaterFile:
    """Label file of a rater.

    Attributes:
        path: Label file.
        rater: Name of the rater.
        repeat: Repeat in the name of the file; "" if there is none.
    """

    path: Path
    rater: str
    repeat: str


@dataclass(frozen=True)
class RaterLabels:
    """All labels of one image.

    Attributes:
        labels: Class indices, ``(labels, depth, lateral[, elevation])``, in which the repeats of a rater are
            consecutive.
        raters: Rater of each label.
    """

    labels: NDArray[np.uint8]
    raters: tuple[str, ...]

    def by_rater(self) -> dict[str, NDArray[np.uint8]]:
        """Return the labels of every rater in the order of the repeats, ``(repeats, depth, lateral[, elevation])``."""
        names = np.array(self.raters)
        return {rater: self.labels[names == rater] for rater in dict.fromkeys(self.raters)}


def find_rater_files(folder: Path, pattern: str = RATER_PATTERN) -> list[RaterFile]:
    """List the repeated labels of an image.

    Args:
        folder: Folder of the labels of an image, ``ratersTr/CASE``. Files that are not images are ignored.
        pattern: Regular expression that must match the entire name of a file without its suffix, with a group ``rater``
            and, if there are repeated labels, a group ``repeat``.

    Returns:
        Files sorted by rater and repeat.

    Raises:
        MissingInputError: The folder does not exist or contains no image.
        InputError: The pattern has no group ``rater``, a name does not match the pattern, or two files have the same
            rater and repeat.
    """
    if "rater" not in re.compile(pattern).groupindex:
        raise InputError(f"The pattern of rater files must have a group (?P<rater>...), found {pattern!r}.")
    paths = image_files(folder) if folder.is_dir() else []
    if not paths:
        reason = "the folder contains no label" if folder.is_dir() else "the folder does not exist"
        raise MissingInputError(
            f"There are no rater labels at {folder}: {reason}. Expected files "
            f"{RATER_FOLDER}/<CASE>/<rater>_<repeat>.ext, one per label."
        )
    files: dict[tuple[str, str], RaterFile] = {}
    for path in paths:
        match = re.fullmatch(pattern, stem(path))
        if match is None:
            raise InputError(
                f"The name of {path} does not match the rater pattern; expected a name that matches {pattern!r} "
                "entirely, without its suffix."
            )
        key = match["rater"], match.groupdict().get("repeat") or ""
        if key in files:
            raise InputError(
                f"{files[key].path} and {path} are the same repeat of the rater {key[0]!r}; expected one file."
            )
        files[key] = RaterFile(path, *key)
    # With leading zeros, repeat 10 is sorted after repeat 9.
    return sorted(files.values(), key=lambda file: (file.rater, file.repeat.zfill(12)))


def read_rater_labels(
    folder: Path,
    case: Case,
    axes: Axes,
    classes: ClassValues,
    pattern: str = RATER_PATTERN,
    frames: Sequence[int] | None = None,
) -> RaterLabels:
    """Read the repeated labels of an image.

    Args:
        folder: Folder of the rater labels of the data set, such as ``ROOT/ratersTr``, with a folder for every case.
        case: The case.
        axes: Axes of the files.
        classes: Value, or values, of every class in the label files.
        pattern: Regular expression for the names of the files; see :func:`find_rater_files`.
        frames: Indices of frames along elevation that are kept, which saves memory for large volumes; all by default.

    Returns:
        The labels.

    Raises:
        MissingInputError: There are no labels of the case.
        InputError: The name or the content of a file is invalid, or a frame does not exist.
    """
    files = find_rater_files(folder / case.id, pattern)
    image = without_values(read_image(case.image))
    shape = image.array.shape
    if frames is not None:
        if len(shape) != 3:
            raise InputError(
                f"{case.image} is a single frame without elevation, but the frames {list(frames)} were requested."
            )
        length = shape[axes.order[2]]
        if not all(0 <= frame < length for frame in frames):
            raise InputError(
                f"{case.image} has {length} frames along elevation; expected indices from 0 to {length - 1}, found "
                f"{list(frames)}."
            )
    labels = []
    for file in files:
        label = read_label(file.path, case.image, image, axes, classes)
        if (label == IGNORED_INDEX).any():
            raise InputError(
                f"{file.path} contains voxels to ignore; expected a class or background for every voxel of a rater."
            )
        labels.append(label if frames is None else label[:, :, list(frames)])
    return RaterLabels(np.stack(labels), tuple(file.rater for file in files))
