"""Ensembles of trained networks, whose probabilities are averaged."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Callback, LightningModule, Trainer

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.cases import file_digest
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.inference.loading import DataSettings, TrainedTask
from cm_lightning.runs import ExperimentFolder, FoldFolder

# Settings without which the members of an ensemble could not share their input.
SHARED = ("spatial_size", "patch_size", "spacing", "domain")
SHARED_MAPS = ("confidence_mode", "confidence_source", "solver")


def find_members(paths: Sequence[Path]) -> list[Path]:
    """Find the checkpoints of an ensemble.

    Args:
        paths: Checkpoints, folders of folds, and folders of experiments, all of whose folds are members. Of a fold, the
            best checkpoint is used.

    Returns:
        Files of the checkpoints, of which there are at least two.

    Raises:
        MissingInputError: A checkpoint does not exist.
        InputError: There is only one checkpoint.
    """
    members: list[Path] = []
    for path in paths:
        folds = ExperimentFolder(path).folds() if path.is_dir() else []
        if path.is_dir() and not folds:
            folds = [FoldFolder(path)]
        files = [fold.best_checkpoint for fold in folds] if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise MissingInputError(
                    f"The checkpoint {file} (--ensemble {path}) does not exist; expected a checkpoint, or the folder "
                    "of an experiment whose folds are trained."
                )
        members += files
    members = list(dict.fromkeys(members))
    if len(members) < 2:
        raise InputError(f"--ensemble needs at least two checkpoints, found {len(members)}: {members[0]}.")
    return members


def check_members(members: Sequence[TrainedTask]) -> None:
    """Check that the members of an ensemble have the same classes and the same kind of input.

    Args:
        members: The members.

    Raises:
        InputError: The members differ.
    """
    first = members[0]
    needing = [member for member in members if member.task.needs_confidence("predict")]
    for member in members[1:]:
        if member.task.hparams["classes"] != first.task.hparams["classes"]:
            raise InputError(
                f"{member.path} was trained with the classes {member.task.hparams['classes']}, but {first.path} with "
                f"{first.task.hparams['classes']}; expected the same classes in an ensemble."
            )
        _check_settings(first, member, SHARED)
    for member in needing[1:]:
        _check_settings(needing[0], member, SHARED_MAPS)


def _check_settings(first: TrainedTask, second: TrainedTask, names: Sequence[str]) -> None:
    for name in names:
        values = [_plain(member.settings, name) for member in (first, second)]
        if values[0] != values[1]:
            raise InputError(
                f"{second.path} was trained with data.{name} {values[1]}, but {first.path} with {values[0]}; expected "
                "the same in an ensemble."
            )


def _plain(settings: DataSettings, name: str) -> object:
    value = getattr(settings, name)
    if name != "solver":
        return value
    return {
        field.name: getattr(value, field.name) for field in fields(value) if field.name not in ("max_batch", "backend")
    }


class EnsembleCheck(Callback):
    """Callback that refuses to predict or test cases with which a member of the ensemble was trained.

    The probabilities of such cases would be too good. Cases are recognised by the content of their image files.

    Args:
        members: The members.
    """

    def __init__(self, members: Sequence[TrainedTask]) -> None:
        self.members = members

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check all cases of the stage."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, UltrasoundDataModule)
        cases = data.cases_of("test" if stage == "test" else "predict")
        for member in self.members:
            if member.trained_on is None:
                rank_zero_warn(f"{member.path} does not state with which cases it was trained; they were not compared.")
                continue
            known = {digest: case for case, digest in member.trained_on.items()}
            used = [case for case in cases if file_digest(case.image) in known]
            if used:
                case = known[file_digest(used[0].image)]
                raise InputError(
                    f"{used[0].image} was used to train or select {member.path} (its case {case}; in all, {len(used)} "
                    f"of {len(cases)} cases were), so that the ensemble must not predict it; expected other images "
                    "(--data.predict_path), or only checkpoints of folds that test these cases."
                )
