"""Detection of the folder layout of a data set, and of files that belong to no case."""

from collections.abc import Sequence
from pathlib import Path

from cm_lightning.data.cases import Case
from cm_lightning.data.layouts import LAYOUTS, LayoutName, unused_labels
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.inspection.findings import Problem

# Names of files and folders that an error message lists.
MAX_NAMES = 6
# Layouts with special names come first.
ORDER: tuple[LayoutName, ...] = ("leg3d", "segthy", "nnunet", "folder")


def detect_layout(root: Path) -> LayoutName:
    """Return the folder layout of a data set.

    Args:
        root: Folder of the data set.

    Returns:
        The first layout with a case that has a label.

    Raises:
        MissingInputError: The folder does not exist.
        InputError: The folder contains no labelled images in any of the layouts.
    """
    if not root.is_dir():
        raise MissingInputError(f"The folder {root} does not exist; expected a data set.")
    layout = _layout_of(root)
    if layout is not None:
        return layout
    inside = [(path, _layout_of(path)) for path in sorted(root.iterdir()) if path.is_dir()]
    hint = next(
        (f" {path} is a data set of the layout {name}: inspect it instead." for path, name in inside if name), ""
    )
    unlabelled = next((name for name in ORDER if _first_case(root, name) is not None), None)
    names = [path.name for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    listed = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
    found = f"its images (layout {unlabelled}) have no labels" if unlabelled else f"it contains {listed or 'nothing'}"
    trees = "\n".join(f"{name}:\n{LAYOUTS[name].tree}" for name in reversed(ORDER))
    raise InputError(f"There are no labelled images in {root}: {found}.{hint} Expected one of these layouts:\n{trees}")


def orphans(root: Path, layout: LayoutName, cases: Sequence[Case]) -> list[Problem]:
    """List label files that belong to no image.

    Args:
        root: Folder of the data set.
        layout: Its layout.
        cases: Its cases.

    Returns:
        One problem per file.
    """
    return [
        Problem("label without image", f"The label {path} belongs to no image; it is not used.")
        for path in unused_labels(root, layout, cases)
    ]


def _layout_of(root: Path) -> LayoutName | None:
    return next(
        (
            name
            for name in ORDER
            if any(case.label is not None and case.label.is_file() for case in LAYOUTS[name].find(root))
        ),
        None,
    )


def _first_case(root: Path, layout: LayoutName) -> Case | None:
    return next(iter(LAYOUTS[layout].find(root)), None)
