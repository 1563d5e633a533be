"""What callbacks ask the trainer: where the run lies, and whether it is time."""

from pathlib import Path

from pytorch_lightning import Trainer

from cm_lightning.runs import FoldFolder


def fold_folder(trainer: Trainer) -> FoldFolder:
    """Folder of the run, without asking the other processes as ``trainer.log_dir`` would."""
    return FoldFolder(Path(trainer.default_root_dir))


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether pictures are drawn in this validation: every so many epochs, in the last, and in ``validate``."""
    if trainer.sanity_checking or trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
        return False
    return epoch_is_due(trainer, every_n_epochs)


def epoch_is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether something is done in this validation, in all processes alike."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.state.fn == "validate"
