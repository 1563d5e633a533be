"""The last lines of a subcommand: its result, the folder, and the next command."""

import shlex
from collections.abc import Sequence

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from cm_lightning.callbacks.prediction_writer import PredictionWriter
from cm_lightning.callbacks.trainer_state import fold_folder
from cm_lightning.metrics import SCORE
from cm_lightning.runs.layout import BEST, LAST
from cm_lightning.tasks import BaseTask


class Outcome(Callback):
    """Callback that prints the result, the folder and the next command.

    Args:
        argv: Command line after the subcommand, of which the next command is made.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the best validation score, and the command of the test."""
        if not _is_shown(trainer):
            return
        folder = fold_folder(trainer)
        name = BEST if folder.best_checkpoint.is_file() else LAST
        scores = [
            float(callback.best_model_score)
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint)
            and callback.monitor == SCORE
            and callback.best_model_score is not None
        ]
        score = f"Best validation Dice {max(scores):.3f}. " if scores else ""
        options = without(self._argv, "--ckpt_path", "--overwrite")
        _print(f"{score}The run is in {folder.path}.", ["test", *options, "--ckpt_path", name])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the folder of the results, and the command of the prediction."""
        if not _is_shown(trainer) or not isinstance(pl_module, BaseTask) or pl_module.test_rows.empty:
            return
        folder = fold_folder(trainer)
        text = f"All results are in {folder.path}; {folder.test_cases.name} lists the worst cases first."
        _print(text, ["predict", *without(self._argv, "--overwrite"), "--data.predict_path", "IMAGES"])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the folder of the predictions."""
        writers = [callback for callback in _callbacks(trainer) if isinstance(callback, PredictionWriter)]
        if _is_shown(trainer) and writers and isinstance(pl_module, BaseTask):
            folder = writers[0].folder or fold_folder(trainer).predictions
            print(f"The predictions are in {folder / pl_module.prediction_kind}.")


def without(argv: Sequence[str], *names: str) -> list[str]:
    """Return a command line without some of its options.

    Args:
        argv: Command line.
        *names: Names of options, such as ``--ckpt_path``.

    Returns:
        Command line without these options and their values.
    """
    kept: list[str] = []
    is_removed = False
    for argument in argv:
        if argument.startswith("--"):
            is_removed = argument.partition("=")[0] in names
        if not is_removed:
            kept.append(argument)
    return kept


def _print(text: str, command: Sequence[str]) -> None:
    print(f"{text}\nNext: python -m cm_lightning {shlex.join(command)}")


def _is_shown(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


def _callbacks(trainer: Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]
