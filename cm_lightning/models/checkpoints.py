"""Reading of checkpoints."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cm_lightning.errors import InputError, MissingInputError

# First bytes of a text that stands for a file of Git LFS.
LFS_POINTER = b"version https://git-lfs"


def read_checkpoint(path: Path, option: str) -> dict[str, Any]:
    """Read a checkpoint, from which no code is run.

    Args:
        path: Lightning checkpoint, or a file that contains a state dict.
        option: Name of the option that specifies the file, for error messages.

    Returns:
        Contents of the file.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file is not a checkpoint, is damaged, or contains code.
    """
    if not path.is_file():
        raise MissingInputError(f"The checkpoint {path} ({option}) does not exist; expected one written by fit.")
    with path.open("rb") as file:
        first = file.read(64)
    if not first:
        raise InputError(f"{path} ({option}) is empty; expected a checkpoint.")
    if first.startswith(LFS_POINTER):
        raise InputError(
            f"{path} ({option}) is a pointer of Git LFS instead of a checkpoint; expected the file itself, which "
            "git lfs pull downloads."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        reason = "contains objects other than weights and settings, which may run code, and was not loaded"
        if not zipfile.is_zipfile(path):
            reason = "is not a checkpoint, or is damaged"
        raise InputError(f"{path} ({option}) {reason}; expected one written by fit.") from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError) as error:
        raise InputError(
            f"{path} ({option}) is not a checkpoint, or is damaged; expected one written by fit."
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} ({option}) contains a {type(content).__name__}, expected weights.")
    return dict(content)
