"""Descriptions of data sets in the raw layout of nnU-Net."""

from pathlib import Path
from typing import Any

from cm_lightning.config_files import read_json
from cm_lightning.errors import InputError


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
