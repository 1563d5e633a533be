"""Folder layouts of data sets, which define the locations of images, labels and patients."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from cm_lightning.data.cases import Case
from cm_lightning.data.description import read_description
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io import PICTURE_AXES, SUFFIXES, VOLUME_AXES, image_files, is_picture, stem

LayoutName = Literal["leg3d", "segthy", "nnunet", "folder"]

# Ending of the names of labels that lie beside their images.
MASK_ENDING = "_mask"
# Folders of labels beside a folder ``images``; the first that exists is used.
LABEL_FOLDERS = ("masks", "labels")


@dataclass(frozen=True)
class Layout:
    """Folder layout of a data set.

    Attributes:
        find: Function that lists the cases in a root folder. Unknown patients are "".
        labels: Function that lists all label files in a root folder.
        axes: File axes of the images.
        tree: Expected files, for error messages.
        source: Where the data set can be downloaded.
    """

    find: Callable[[Path], Iterator[Case]]
    labels: Callable[[Path], list[Path]]
    axes: str
    tree: str
    source: str


def find_cases(
    root: Path, layout: LayoutName, patient_pattern: str | None = None, patient_table: Path | None = None
) -> list[Case]:
    """List the cases of a data set, sorted by id.

    Args:
        root: Folder of the data set.
        layout: Folder layout of the data set.
        patient_pattern: Regular expression that is searched in the id of a case. Its first group (or the entire match)
            is the patient.
        patient_table: CSV file with the columns ``case`` and ``patient``, instead of the pattern.

    Returns:
        The cases. Unknown patients are "".

    Raises:
        MissingInputError: The folder does not exist or contains no case. The message describes the expected files,
            where the data set can be downloaded, and how to run the demo.
        InputError: Two cases have the same id, the name of a file cannot be written to tables, or the pattern or the
            table contains no patient of a case.
    """
    kind = LAYOUTS[layout]
    cases = sorted(kind.find(root), key=lambda case: case.id) if root.is_dir() else []
    if not cases:
        reason = "the folder contains no image of this layout" if root.is_dir() else "the folder does not exist"
        raise MissingInputError(
            f"There is no data set at {root} (data.root): {reason}.\n"
            f"Expected layout ({layout}):\n{kind.tree}\n"
            f"The data set can be downloaded from: {kind.source}\n"
            "Set --data.root to its folder, or run the demo on the built-in phantom:\n"
            "  python -m cm_lightning fit --config configs/muscle_2ch.yaml --config configs/demo.yaml"
        )
    for case in cases:
        if not case.id.isprintable():  # control characters, and bytes that are no UTF-8
            raise InputError(
                f"The name of the file {str(case.image)!r} contains control characters, or is not UTF-8; expected a "
                "name that can be printed. Rename it."
            )
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        duplicates = sorted({name for name in ids if ids.count(name) > 1})
        raise InputError(
            f"{root} contains several images of the cases {', '.join(duplicates)}; expected one image per case."
        )
    patients = _read_patients(patient_table)
    return [_with_patient(case, patient_pattern, patients) for case in cases]


def default_axes(root: Path, layout: LayoutName, spatial_dims: int | None = None) -> str:
    """Return the usual axes of the files of a data set.

    Args:
        root: Folder of the data set, which does not have to exist yet.
        layout: Folder layout of the data set.
        spatial_dims: Number of axes; by default, 2 for pictures such as PNG files, or else that of the layout.

    Returns:
        Axes in the notation of :class:`cm_lightning.io.Axes`: those of the layout, ``depth lateral`` for pictures, and
        ``lateral depth`` or ``lateral depth elevation`` for other files.
    """
    if spatial_dims in (None, 2) and root.is_dir():
        first = next(LAYOUTS[layout].find(root), None)
        if first is not None and is_picture(first.image):
            return PICTURE_AXES[2]
    axes = LAYOUTS[layout].axes
    return axes if spatial_dims in (None, len(axes.split())) else VOLUME_AXES[spatial_dims]


def unused_labels(root: Path, layout: LayoutName, cases: Sequence[Case]) -> list[Path]:
    """List label files that belong to no image.

    Args:
        root: Folder of the data set.
        layout: Its layout.
        cases: Its cases.

    Returns:
        The files.
    """
    used = {case.label for case in cases}
    return [path for path in LAYOUTS[layout].labels(root) if path not in used]


def _read_patients(table: Path | None) -> dict[str, str] | None:
    if table is None:
        return None
    if not table.is_file():
        raise MissingInputError(
            f"The patient table {table} (data.patient_table) does not exist; expected a CSV file with the columns "
            "'case' and 'patient'."
        )
    try:
        frame = pd.read_csv(table, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (ValueError, OSError) as error:  # from decoding and from pandas
        raise InputError(
            f"{table} (data.patient_table) cannot be read: {error}; expected a CSV file in UTF-8 with the columns "
            "'case' and 'patient'."
        ) from error
    if not {"case", "patient"} <= set(frame.columns):
        raise InputError(f"{table} has the columns {list(frame.columns)}; expected 'case' and 'patient'.")
    repeated = frame["case"][frame["case"].duplicated()]
    if len(repeated):
        raise InputError(f"{table} lists the case {repeated.iloc[0]} several times; expected one row per case.")
    unknown = frame["case"][frame["patient"].str.strip() == ""]
    if len(unknown):
        raise InputError(f"{table} names no patient of the case {unknown.iloc[0]}; expected a patient in every row.")
    return dict(zip(frame["case"], frame["patient"], strict=True))


def _with_patient(case: Case, pattern: str | None, table: dict[str, str] | None) -> Case:
    """Set the patient from a table or a pattern, which take precedence over the layout."""
    patient = case.patient
    if table is not None:
        if case.id not in table:
            raise InputError(f"The patient table has no row for the case {case.id} ({case.image}).")
        patient = table[case.id]
    elif pattern is not None:
        match = re.search(pattern, case.id)
        if match is None:
            raise InputError(f"The patient pattern {pattern!r} does not match the case id {case.id!r} ({case.image}).")
        patient = match.group(1) if match.re.groups else match.group(0)
    return Case(case.id, patient, case.image, case.label, case.subset)


def _images(folder: Path) -> list[Path]:
    return image_files(folder) if folder.is_dir() else []


def _find_leg3d(root: Path) -> Iterator[Case]:
    for subset in ("train", "val", "test"):
        for image in _leg3d_files(root / subset, "x"):
            label = image.with_name(f"masksX{image.stem[1:]}.mha")
            subject = image.parent.name
            yield Case(f"{subject}_{image.stem}", subject, image, label, subset)


def _leg3d_labels(root: Path) -> list[Path]:
    return [path for subset in ("train", "val", "test") for path in _leg3d_files(root / subset, "masksX")]


def _leg3d_files(folder: Path, prefix: str) -> list[Path]:
    """List the files of all subjects in a folder."""
    subjects = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [file for subject in subjects for file in image_files(subject) if file.match(f"{prefix}*.mha")]


def _segthy_base(root: Path) -> Path:
    return root / "US_volunteer_dataset" if (root / "US_volunteer_dataset").is_dir() else root


def _find_segthy(root: Path) -> Iterator[Case]:
    base = _segthy_base(root)
    for image in _images(base / "ground_truth_data" / "US"):
        name = stem(image).removesuffix("_US")
        suffix = image.name[len(stem(image)) :]
        label = base / "ground_truth_data" / "US_thyroid_label" / f"{name}{suffix}"
        if not label.is_file():
            label = base / "US_thyroid_label" / f"{name}{suffix}"
        yield Case(name, name.split("_")[0], image, label)


def _segthy_labels(root: Path) -> list[Path]:
    base = _segthy_base(root)
    return _images(base / "ground_truth_data" / "US_thyroid_label") + _images(base / "US_thyroid_label")


def _find_nnunet(root: Path) -> Iterator[Case]:
    ending = read_description(root).get("file_ending")
    for subset in ("Tr", "Ts"):
        labels = {stem(path): path for path in _images(root / f"labels{subset}")}
        images = [path for path in _images(root / f"images{subset}") if not ending or path.name.endswith(ending)]
        stems = {stem(path) for path in images}
        for image in images:
            # nnU-Net appends the number of the channel, which is 0000 for images with one channel.
            name = re.sub(r"_0000$", "", stem(image))
            first = re.sub(r"_\d{4}$", "_0000", stem(image))
            if first != stem(image) and first in stems:
                raise InputError(
                    f"{image} is a further channel of {first}; expected images with one channel, which is 0000."
                )
            label = labels.get(name)
            if label is None and subset == "Tr":
                label = root / "labelsTr" / f"{name}{image.name[len(stem(image)) :]}"
            if label is not None:
                official = None if not (root / "labelsTs").is_dir() else {"Tr": "train", "Ts": "test"}[subset]
                yield Case(name, "", image, label, official)


def _nnunet_labels(root: Path) -> list[Path]:
    return _images(root / "labelsTr") + _images(root / "labelsTs")


def _find_folder(root: Path) -> Iterator[Case]:
    labels = {stem(path).removesuffix(MASK_ENDING): path for path in _folder_labels(root)}
    if (root / "images").is_dir():
        folder = _label_folder(root)
        for image in _images(root / "images"):
            yield Case(stem(image), "", image, labels.get(stem(image), folder / image.name))
    elif labels:
        for image in _images(root):
            name, suffix = stem(image), image.name[len(stem(image)) :]
            if not name.endswith(MASK_ENDING):
                yield Case(name, "", image, labels.get(name, root / f"{name}{MASK_ENDING}{suffix}"))


def _folder_labels(root: Path) -> list[Path]:
    if (root / "images").is_dir():
        return _images(_label_folder(root))
    return [path for path in _images(root) if stem(path).endswith(MASK_ENDING)]


def _label_folder(root: Path) -> Path:
    """Return the folder of the labels; the first possible one if there is none."""
    folders = [root / name for name in LABEL_FOLDERS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


LAYOUTS: dict[LayoutName, Layout] = {
    "leg3d": Layout(
        _find_leg3d,
        _leg3d_labels,
        "lateral depth elevation",
        "  ROOT/{train,val,test}/<SUBJECT>/x1.mha       image (more x*.mha possible)\n"
        "  ROOT/{train,val,test}/<SUBJECT>/masksX1.mha  label",
        "the Leg-3D-US data set of the Chair for Computer Aided Medical Procedures, Technical University of Munich "
        "(https://www.cs.cit.tum.de/camp/publications/leg-3d-us-dataset/)",
    ),
    "segthy": Layout(
        _find_segthy,
        _segthy_labels,
        "lateral depth elevation",
        "  ROOT/US_volunteer_dataset/ground_truth_data/US/<ID>_P<1-3>_<SCAN>_<left|right>_US.nii\n"
        "  ROOT/US_volunteer_dataset/ground_truth_data/US_thyroid_label/<ID>_P<1-3>_<SCAN>_<left|right>.nii",
        "the SegThy data set of the Chair for Computer Aided Medical Procedures, Technical University of Munich "
        "(https://www.cs.cit.tum.de/camp/publications/segthy-dataset/)",
    ),
    "nnunet": Layout(
        _find_nnunet,
        _nnunet_labels,
        "lateral depth elevation",
        "  ROOT/dataset.json             (optional; its file_ending is used)\n"
        "  ROOT/imagesTr/<CASE>_0000.ext\n"
        f"  ROOT/labelsTr/<CASE>.ext      ext: {', '.join(SUFFIXES)}\n"
        "  ROOT/imagesTs, ROOT/labelsTs  (optional; the official test set)",
        "your own images in the raw layout of nnU-Net",
    ),
    "folder": Layout(
        _find_folder,
        _folder_labels,
        "depth lateral",
        "  ROOT/images/<CASE>.ext\n"
        f"  ROOT/masks/<CASE>.ext         or ROOT/labels/<CASE>.ext; ext: {', '.join(SUFFIXES)}\n"
        "or, in one folder:\n"
        f"  ROOT/<CASE>.ext, ROOT/<CASE>{MASK_ENDING}.ext",
        "your own frames; for example USGRA-Seg (nerves and vessels, CC-BY 4.0, https://github.com/tmkand/usgra-seg)",
    ),
}
