"""Checkpoints that every run has, beside those of ``--checkpoint``."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from cm_lightning.errors import InputError
from cm_lightning.writing import replaced


class LastCheckpoint(ModelCheckpoint):
    """Checkpoint of the last finished epoch, which replaces the previous one.

    It is a class of its own, since Lightning stores the state of callbacks by class and trigger.
    """


class BestCheckpoint(ModelCheckpoint):
    """Checkpoint of the best validation, for runs that keep several checkpoints under other names."""


class CompleteCheckpointIO(TorchCheckpointIO):
    """Writer of checkpoints that replaces a file only by a complete one, beside its name on the same file system.

    Lightning writes to the folder for temporary files and moves the file, which may cut it on a full disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Contents.
            path: The file.
            storage_options: Not supported.

        Raises:
            InputError: The file cannot be written, for example because the disk is full.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            with replaced(Path(path)) as partial:
                partial.write_bytes(buffer.getbuffer())
        except OSError as error:
            raise InputError(
                f"The checkpoint {path} could not be written: {error.strerror}; expected "
                f"{buffer.getbuffer().nbytes / 2**20:.1f} MB of free space. Earlier checkpoints are complete, and fit "
                "--ckpt_path auto continues from the last one."
            ) from error
