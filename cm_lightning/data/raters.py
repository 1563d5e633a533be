"""Repeated labels of one image, by one or several raters: ``ratersTr/CASE/<rater>_<repeat>.ext``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cm_lightning.data.cases import Case, read_label
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io import Axes, is_image, read_image, stem

RATER_FOLDER = "ratersTr"
RATER_PATTERN = r"(?P<rater>.+?)(_(?P<repeat>[0-9]+))?"


@dataclass(frozen=True)
class RaterFile:
    """One label of an image.

    Attributes:
        path: Label file.
        rater: Who drew it.
        repeat: Which of the rater's labels it is, as the file's name says; "" where it says nothing.
    """

    path: Path
    rater: str
    repeat: str


@dataclass(frozen=True)
class RaterLabels:
    """All labels of one image.

    Attributes:
        labels: Class indices, ``(labels, depth, lateral[, elevation])``; a rater's repeats lie side by side.
        raters: Who drew each label.
    """

    labels: NDArray[np.uint8]
    raters: tuple[str, ...]

    def by_rater(self) -> dict[str, NDArray[np.uint8]]:
        """Give every rater's own labels, in the order of their repeats."""
        drawn_by = np.array(self.raters)
        return {rater: self.labels[drawn_by == rater] for rater in dict.fromkeys(self.raters)}


def find_rater_files(folder: Path, pattern: str = RATER_PATTERN) -> list[RaterFile]:
    """List the repeated labels of one image.

    Args:
        folder: Folder of the image's labels, ``ratersTr/CASE``; files that are no images are passed over.
        pattern: Regular expression that all of a file's name without its suffix matches, with the group ``rater`` and,
            where raters labelled more than once, ``repeat``.

    Returns:
        The files by rater, then by repeat.

    Raises:
        MissingInputError: The folder is not there or holds no image.
        InputError: A name does not match the pattern, or two files are the same repeat of one rater.
    """
    if "rater" not in re.compile(pattern).groupindex:
        raise InputError(f"The pattern of rater files must have a group (?P<rater>...), found {pattern!r}.")
    paths = [path for path in folder.iterdir() if is_image(path)] if folder.is_dir() else []
    if not paths:
        found = "it holds no label" if folder.is_dir() else "there is no such folder"
        raise MissingInputError(
            f"No rater labels at {folder}: {found}. Expected {RATER_FOLDER}/<CASE>/<rater>_<repeat>.ext, one file each."
        )
    files: dict[tuple[str, str], RaterFile] = {}
    for path in paths:
        match = re.fullmatch(pattern, stem(path))
        if match is None:
            raise InputError(f"The name of {path} does not tell its rater; expected it to match {pattern!r}.")
        key = match["rater"], match.groupdict().get("repeat") or ""
        if key in files:
            raise InputError(f"{files[key].path} and {path} are the same label of rater {key[0]!r}; expected one file.")
        files[key] = RaterFile(path, *key)
    # Filled with zeros, repeat 10 comes after repeat 9.
    return sorted(files.values(), key=lambda file: (file.rater, file.repeat.zfill(12)))


def read_rater_labels(
    folder: Path,
    case: Case,
    axes: Axes,
    classes: dict[str, int],
    pattern: str = RATER_PATTERN,
    frames: Sequence[int] | None = None,
) -> RaterLabels:
    """Read the repeated labels of one image.

    Args:
        folder: Folder of the data set's rater labels, for example ``ROOT/ratersTr``; it has a folder for every case.
        case: The image.
        axes: Which file axis is which.
        classes: Value in the label files of every class.
        pattern: How a file's name tells its rater, as in :func:`find_rater_files`.
        frames: Elevational positions to keep of a volume, so that many labels of a large one need not be held; all by
            default.

    Returns:
        The labels.

    Raises:
        MissingInputError: There are no labels of the case.
        InputError: A file's name or content is not what is expected, or the image has no such frames.
    """
    files = find_rater_files(folder / case.id, pattern)
    shape = read_image(case.image).array.shape
    if frames is not None:
        length = shape[axes.order[2]] if len(shape) == 3 else 0
        if not length or not all(0 <= frame < length for frame in frames):
            raise InputError(f"{case.image} has {length} frames along elevation; found the frames {list(frames)}.")
    labels = []
    for file in files:
        label = read_label(file.path, case.image, shape, axes, classes)
        labels.append(label if frames is None else label[:, :, list(frames)])
    return RaterLabels(np.stack(labels), tuple(file.rater for file in files))
