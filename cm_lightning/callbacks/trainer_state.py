"""State of the trainer that several callbacks need."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from cm_lightning.errors import InputError
from cm_lightning.runs import FoldFolder


def check_pictures(name: str, every_n_epochs: int, cases: int) -> None:
    """Check the settings of pictures during training.

    Args:
        name: Name of the options.
        every_n_epochs: Number of epochs between pictures.
        cases: Number of cases.

    Raises:
        InputError: A number is out of its range.
    """
    if every_n_epochs < 1 or cases < 0:
        raise InputError(
            f"{name}.every_n_epochs must be at least 1 and {name}.cases at least 0, found {every_n_epochs} and {cases} "
            "(0 cases give no pictures)."
        )


def fold_folder(trainer: Trainer) -> FoldFolder:
    """Return the folder of the run, without the communication between processes of ``trainer.log_dir``."""
    return FoldFolder(Path(trainer.default_root_dir))


def is_inside(checkpoint: Any, folder: Path) -> bool:
    """Return whether a checkpoint lies in a folder, and thus is one of this run."""
    return bool(checkpoint) and Path(checkpoint).resolve().is_relative_to(folder.resolve())


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Return whether pictures are drawn in this validation: every n epochs, in the last one, and in ``validate``."""
    if trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
        return False
    return epoch_is_due(trainer, every_n_epochs)


def epoch_is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Return whether an action that is due every n epochs is due in this validation, equally in all processes."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.state.fn == "validate"
