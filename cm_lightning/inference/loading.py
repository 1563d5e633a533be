"""Loading of trained tasks with the settings of their data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, get_args

from cm_lightning.confidence import ConfidenceMapSolver, ProbeName
from cm_lightning.data.map_sources import ConfidenceMode, ConfidenceSource
from cm_lightning.errors import InputError
from cm_lightning.models.checkpoints import read_checkpoint
from cm_lightning.runs import FoldFolder
from cm_lightning.tasks import DeepAtlasTask, SegmentationTask

TASKS: dict[str, type[SegmentationTask]] = {"SegmentationTask": SegmentationTask, "DeepAtlasTask": DeepAtlasTask}


@dataclass(frozen=True)
class DataSettings:
    """Settings of the data with which a network was trained, and which predictions need.

    Attributes:
        axes: Axes of the image files.
        spatial_size: Size of whole images, or None.
        patch_size: Size of sliding windows, or None.
        spacing: Common voxel size in mm, or None.
        domain: Kind of the insonified region, or a geometry file.
        confidence_mode: Whether maps are computed at file resolution, on the network's grid, or not at all.
        confidence_source: The map of the solver, or a control.
        solver: Solver of the maps.
    """

    axes: str
    spatial_size: tuple[int, ...] | None
    patch_size: tuple[int, ...] | None
    spacing: tuple[float, ...] | None
    domain: ProbeName | Path
    confidence_mode: ConfidenceMode
    confidence_source: ConfidenceSource
    solver: ConfidenceMapSolver

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create settings from plain values, as in a checkpoint or in a configuration file.

        Args:
            values: Values by name; those with other names are ignored.

        Returns:
            The settings.
        """
        chosen: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        for name in ("spatial_size", "patch_size", "spacing"):
            chosen[name] = tuple(chosen[name]) if chosen[name] else None
        domain = str(chosen["domain"])
        chosen["domain"] = domain if domain in get_args(ProbeName) else Path(domain)
        known = {field.name for field in fields(ConfidenceMapSolver)}
        solver = {key: value for key, value in (chosen["solver"] or {}).items() if key in known}
        return cls(**{**chosen, "solver": ConfidenceMapSolver(**solver)})


@dataclass(frozen=True)
class TrainedTask:
    """Trained task of a checkpoint, in evaluation mode.

    Attributes:
        path: Checkpoint file.
        task: The task with its weights, on the CPU.
        settings: Settings of the data.
        trained_on: Digests of the image files of training and validation by the id of the case; None if the checkpoint
            does not contain them.
    """

    path: Path
    task: SegmentationTask
    settings: DataSettings
    trained_on: Mapping[str, str] | None


def load_task(path: Path, option: str = "checkpoint", **changes: Any) -> TrainedTask:
    """Load the task of a checkpoint.

    Args:
        path: Checkpoint that ``fit`` wrote. Checkpoints of earlier versions need the ``config.yaml`` of their run in
            the folder above.
        option: Name of the option that specifies the file, for error messages.
        **changes: Arguments of the task that differ from those of the training, such as ``mc_dropout``.

    Returns:
        The task.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file is not a checkpoint of a task of this package, or does not state the settings of its data.
    """
    checkpoint = read_checkpoint(path, option)
    arguments = dict(checkpoint.get("hyper_parameters") or {})
    name = str(arguments.pop("_class_path", "")).rpartition(".")[2]
    arguments.pop("_instantiator", None)
    if "state_dict" not in checkpoint or "classes" not in arguments:
        raise InputError(
            f"{path} ({option}) contains no settings of a network, such as its classes; expected a checkpoint that fit "
            "wrote."
        )
    task_class = TASKS.get(name, DeepAtlasTask if "registration_steps" in arguments else SegmentationTask)
    task = task_class(**{**arguments, **changes})
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"The weights in {path} ({option}) do not fit the network that its settings describe; expected an "
            "unchanged checkpoint that fit wrote."
        ) from error
    task.on_load_checkpoint(checkpoint)
    stored = checkpoint.get("UltrasoundDataModule") or {}
    settings = stored.get("settings") or _settings_of_run(path, option)
    return TrainedTask(
        path, task.eval().requires_grad_(False), DataSettings.from_dict(settings), stored.get("trained_on")
    )


def _settings_of_run(path: Path, option: str) -> dict[str, Any]:
    """Read the settings of the data from the folder of a run, which earlier versions did not write to checkpoints."""
    fold = FoldFolder(path.resolve().parent.parent)
    if not fold.config.is_file():
        raise InputError(
            f"{path} ({option}) does not contain the settings of its data, and there is no {fold.config}; expected a "
            "checkpoint of the current version, or one in the folder of its run."
        )
    settings = fold.read_settings()
    data = dict(settings.get("data") or {})
    return {**data, "axes": data.get("axes"), "solver": settings.get("solver") or data.get("solver")}
