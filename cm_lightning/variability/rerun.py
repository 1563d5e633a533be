"""Repeating the test of a trained fold with other callbacks."""

import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, Trainer

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.errors import InputError, MissingInputError
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
    """
    settings = fold.read_settings()
    data_settings = dict(settings["data"])
    if root is not None:
        data_settings["root"] = str(root)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UltrasoundDataModule, "data")
    parser.add_class_arguments(ConfidenceMapSolver, "solver")
    parser.link_arguments("solver", "data.solver", apply_on="instantiate")
    for name in ("solver", "pairs_per_case"):  # a separate group, and a setting of earlier versions
        data_settings.pop(name, None)
    instances = parser.instantiate_classes(parser.parse_object({"data": data_settings, "solver": settings["solver"]}))
    data: UltrasoundDataModule = instances.data
    return data


def load_task(fold: FoldFolder) -> SegmentationTask:
    """Load the best weights of a fold.

    Args:
        fold: Folder of the fold.

    Returns:
        The task, on the CPU.

    Raises:
        MissingInputError: There is no checkpoint.
        InputError: The checkpoint does not contain a segmentation task.
    """
    checkpoint = fold.best_checkpoint
    if not checkpoint.is_file():
        raise MissingInputError(f"There is no {checkpoint}; expected the checkpoint of the best epoch that fit writes.")
    module, _, name = fold.read_settings()["model"]["class_path"].rpartition(".")
    task_class = getattr(importlib.import_module(module), name)
    if not issubclass(task_class, SegmentationTask):
        raise InputError(f"{fold.path} is a run of {name}; expected a SegmentationTask.")
    task: SegmentationTask = task_class.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=False)
    return task


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
