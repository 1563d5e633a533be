"""Descriptions of data sets in the raw layout of nnU-Net."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_lightning.config_files import read_json
from cm_lightning.errors import InputError

# Name of the voxels that nnU-Net leaves out.
IGNORED = "ignore"


def read_description(root: Path) -> dict[str, Any]:
    """Read the description of a data set in the raw layout of nnU-Net.

    Args:
        root: Folder of the data set.

    Returns:
        Contents of ``dataset.json``; empty if it does not exist.

    Raises:
        InputError: The file contains no JSON object.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    description = read_json(path)
    if not isinstance(description, dict):
        raise InputError(f"{path} contains {type(description).__name__}; expected a JSON object.")
    return description


def described_labels(description: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """List the names of a description with their label values.

    nnU-Net maps names to values, or to the values of which a region consists; the Medical Segmentation Decathlon maps
    values to names.

    Args:
        description: Contents of ``dataset.json``.

    Returns:
        Pairs of a name and its value, or list of values, also of the background. The values are not checked.
    """
    labels = description.get("labels")
    return [
        (entry, int(key)) if isinstance(entry, str) and key.isdecimal() else (key, entry)
        for key, entry in (labels.items() if isinstance(labels, dict) else ())
    ]
