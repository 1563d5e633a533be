"""A trained fold, tested once more with something else looked at."""

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
    """Build the data module that a fold was trained with.

    Args:
        fold: The fold's folder, with the ``config.yaml`` that fit wrote.
        root: Where the data set lies now, where that is not where it was.

    Returns:
        The data module.

    Raises:
        MissingInputError: There is no configuration.
    """
    settings = fold.read_settings()
    chosen = dict(settings["data"])
    if root is not None:
        chosen["root"] = str(root)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UltrasoundDataModule, "data")
    parser.add_class_arguments(ConfidenceMapSolver, "solver")
    parser.link_arguments("solver", "data.solver", apply_on="instantiate")
    for name in ("solver", "pairs_per_case"):  # of a group of its own, and of earlier versions
        chosen.pop(name, None)
    built = parser.instantiate_classes(parser.parse_object({"data": chosen, "solver": settings["solver"]}))
    data: UltrasoundDataModule = built.data
    return data


def load_task(fold: FoldFolder) -> SegmentationTask:
    """Load the best weights of a fold.

    Args:
        fold: The fold's folder.

    Returns:
        The task.

    Raises:
        MissingInputError: There is no checkpoint.
        InputError: It is of no segmentation task.
    """
    checkpoint = fold.best_checkpoint
    if not checkpoint.is_file():
        raise MissingInputError(f"There is no {checkpoint}; expected the best weights that fit kept there.")
    module, _, name = fold.read_settings()["model"]["class_path"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    if not issubclass(kind, SegmentationTask):
        raise InputError(f"{fold.path} is a run of {name}; expected a SegmentationTask.")
    task: SegmentationTask = kind.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=False)
    return task


def run_test(
    task: SegmentationTask, data: UltrasoundDataModule, callbacks: Sequence[Callback], accelerator: str = "auto"
) -> None:
    """Run the test of a fold in this process, with callbacks that look at it; nothing is written to the fold.

    Args:
        task: The task.
        data: Its data.
        callbacks: What looks at the test.
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
