"""Repeating the test of a trained fold with other callbacks."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser
from pytorch_lightning import Callback, Trainer

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.errors import InputError
from cm_lightning.parsing import innermost_reason
from cm_lightning.runs import FoldFolder
from cm_lightning.tasks import SegmentationTask


def load_data(fold: FoldFolder, root: Path | None = None) -> UltrasoundDataModule:
    """Create the data module with which a fold was trained.

    Args:
        fold: Folder of the fold with its ``config.yaml``.
        root: Folder of the data set, if it differs from the one used in training.

    Returns:
        The data module.

    Raises:
        MissingInputError: There is no configuration.
        InputError: The configuration is damaged, or its settings are invalid.
    """
    settings = fold.read_settings("data", "solver")
    data_settings = dict(settings["data"])
    if root is not None:
        data_settings["root"] = str(root)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UltrasoundDataModule, "data")
    parser.add_class_arguments(ConfidenceMapSolver, "solver")
    parser.link_arguments("solver", "data.solver", apply_on="instantiate")
    for name in ("solver", "pairs_per_case"):  # a separate group, and a setting of earlier versions
        data_settings.pop(name, None)
    try:
        instances = parser.instantiate_classes(
            parser.parse_object({"data": data_settings, "solver": settings["solver"]})
        )
    except InputError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"The settings in {fold.config} are invalid: {innermost_reason(error)}") from error
    data: UltrasoundDataModule = instances.data
    return data


def run_test(
    task: SegmentationTask, data: UltrasoundDataModule, callbacks: Sequence[Callback], accelerator: str = "auto"
) -> None:
    """Run the test of a fold in this process with additional callbacks; nothing is written to the fold.

    Args:
        task: Trained task.
        data: Data of the fold.
        callbacks: Callbacks of the test.
        accelerator: Lightning's name of the device.
    """
    data.pairs_per_case = task.pairs_per_case
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            logger=False,
            callbacks=list(callbacks),
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.test(task, data, verbose=False)
