"""Names of the files and folders of runs in ``<output_dir>/<experiment>/fold<k>``."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_lightning.config_files import read_json
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.runs.lock import LOCK_FILE
from cm_lightning.runs.settings import read_settings

# Names of the checkpoints of the best validation and of the last finished epoch.
BEST, LAST = "best", "last"
# Checkpoint of the last epoch if there is one; otherwise, training from scratch.
AUTO = "auto"
# Checkpoints that Lightning writes when SLURM announces the end of a job.
SLURM_CHECKPOINTS = "hpc_ckpt_*.ckpt"
CONFIG_FILE = "config.yaml"
TEST_METRICS_FILE = "test_metrics.csv"


STAGES = ("fit", "validate", "test", "predict")


@dataclass(frozen=True)
class FoldFolder:
    """Folder of one fold of an experiment, with its training, tests and predictions.

    Args:
        path: The folder, which does not have to exist.
    """

    path: Path

    @property
    def name(self) -> str:
        """Names of experiment and fold, such as ``muscle_2ch/fold0``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def experiment(self) -> "ExperimentFolder":
        """Experiment of the fold."""
        return ExperimentFolder(self.path.parent)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint file of the epoch with the best validation score."""
        return self.checkpoints / f"{BEST}.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint file of the last finished epoch."""
        return self.checkpoints / f"{LAST}.ckpt"

    @property
    def config(self) -> Path:
        """YAML file of the training settings."""
        return self.path / CONFIG_FILE

    @property
    def metrics(self) -> Path:
        """CSV file of the logged metrics, with one row per logged step."""
        return self.path / "metrics.csv"

    @property
    def finished(self) -> Path:
        """JSON file that exists once the training has finished."""
        return self.path / "finished.json"

    @property
    def test_metrics(self) -> Path:
        """CSV file of the test results, with one row per case, class and metric. It exists once the fold was tested."""
        return self.path / TEST_METRICS_FILE

    @property
    def test_summary(self) -> Path:
        """CSV file of the means and standard deviations of the test results."""
        return self.path / "test_summary.csv"

    @property
    def summary(self) -> Path:
        """JSON file of the test results in the arrangement of nnU-Net: per case, per class and over all classes."""
        return self.path / "summary.json"

    @property
    def test_levels(self) -> Path:
        """CSV file of the numbers of correct and wrong voxels of the test, by confidence and depth."""
        return self.path / "test_levels.csv"

    @property
    def test_calibration(self) -> Path:
        """CSV file of the calibration sums of the test, by predicted probability."""
        return self.path / "test_calibration.csv"

    @property
    def test_cases(self) -> Path:
        """CSV file of the list of test cases, the worst first."""
        return self.path / "test_cases.csv"

    @property
    def test_confusion(self) -> Path:
        """CSV file of the confusion matrix of the test."""
        return self.path / "test_confusion.csv"

    @property
    def test_plan(self) -> Path:
        """JSON file of the test cases of all folds of the split, and of the versions of the software."""
        return self.path / "test_plan.json"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "pictures"

    def test_picture(self, case: str) -> Path:
        """Return the picture of one of the worst test cases.

        Args:
            case: Id of the case.

        Returns:
            PNG file.
        """
        return self.pictures / f"test_{case}.png"

    @property
    def predictions(self) -> Path:
        """Folder of the predictions."""
        return self.path / "predictions"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """Text file of the output of the fold's processes during cross-validation."""
        return self.path.parent / f"{self.path.name}.log"

    def settings_file(self, stage: str) -> Path:
        """Return the file with the settings of a stage, which is a different one for each stage.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Returns:
            YAML file.
        """
        return self.config if stage == "fit" else self.path / f"{stage}_{CONFIG_FILE}"

    def find_checkpoint(self, name: str) -> Path:
        """Find a checkpoint by its name or path.

        Args:
            name: "best" or "last" for checkpoints of this run, or the path of a file.

        Returns:
            Checkpoint file.

        Raises:
            MissingInputError: The checkpoint does not exist.
        """
        if name == AUTO:
            raise InputError("--ckpt_path auto is only for fit; expected best, last or the file of a checkpoint.")
        path = {BEST: self.best_checkpoint, LAST: self.last_checkpoint}.get(name, Path(name))
        if not path.is_file():
            raise MissingInputError(
                f"The checkpoint {path} (--ckpt_path {name}) does not exist; expected best or last of an earlier fit "
                "with the same --experiment, --output_dir and --data.fold, or the file of a checkpoint. For fit, omit "
                "--ckpt_path to train from scratch."
            )
        return path

    def resumable_checkpoint(self) -> Path | None:
        """Return the newest checkpoint from which training continues, also one of SLURM; None without one."""
        files = [self.last_checkpoint, *self.path.glob(SLURM_CHECKPOINTS)]
        return max((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime, default=None)

    def remove_earlier_run(self, overwrite: bool) -> None:
        """Remove the files of an earlier run, so that they cannot be mistaken for those of the new run.

        A run that was killed before its first checkpoint is removed as well, since nothing of it can be used.

        Args:
            overwrite: Whether an earlier run may be removed.

        Raises:
            InputError: There is an earlier run, and it must not be removed, or there are files of something else.
        """
        checkpoints = [*self.checkpoints.glob("[!.]*.ckpt"), *self.path.glob(SLURM_CHECKPOINTS)]
        if checkpoints and not overwrite:
            resume = "Resume it with --ckpt_path last, replace" if self.resumable_checkpoint() else "Replace"
            raise InputError(
                f"{self.path} already contains a run. {resume} it with --overwrite true, or choose another "
                "--experiment."
            )
        folders = [self.checkpoints, self.pictures, self.predictions, self.path / "wandb", self.tensorboard]
        files = [self.metrics, self.test_plan, self.summary, self.finished, *self.path.glob("test_*.csv")]
        files += [self.settings_file(stage) for stage in STAGES]
        files = [file for file in [*files, *self.path.glob(SLURM_CHECKPOINTS)] if file.is_file()]
        self.check_owner()
        for folder in folders:
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder, ignore_errors=True)
        for file in files:
            file.unlink()

    def check_owner(self) -> None:
        """Check that a run may write to the folder.

        Raises:
            InputError: Something else than a run of this package has made the folder, whose files might be lost.
        """
        names = ("checkpoints", "pictures", "predictions", "wandb", "tensorboard", "metrics.csv", CONFIG_FILE)
        foreign = [name for name in names if (self.path / name).exists()]
        if foreign and not self._is_run():
            raise InputError(
                f"{self.path} contains {', '.join(foreign)}, but no {CONFIG_FILE} of a run of cm_lightning; expected a "
                "new folder or that of a run. Nothing was deleted."
            )

    def _is_run(self) -> bool:
        """Return whether a run of this package has made the folder: it has its settings, or its lock."""
        if (self.path / LOCK_FILE).is_file():
            return True
        return any(_is_settings(self.settings_file(stage)) for stage in STAGES)

    def read_settings(self, *sections: str) -> dict[str, Any]:
        """Read the training settings.

        Args:
            sections: Sections that are needed, such as "data".

        Returns:
            Nested settings.

        Raises:
            MissingInputError: The file does not exist.
            InputError: The file was not written by ``fit``, or is damaged.
        """
        if not self.config.is_file():
            raise MissingInputError(f"{self.config} does not exist; expected the settings that fit writes.")
        settings = read_settings(self.config)
        missing = [name for name in sections if not isinstance(settings.get(name), dict)]
        if missing:
            raise InputError(
                f"{self.config} lacks the settings {', '.join(missing)}; expected the file that fit writes."
            )
        return settings

    def read_test_plan(self) -> dict[str, Any]:
        """Read the test cases of all folds.

        Returns:
            ``split``, ``split_seed``, ``fold``, ``test_cases`` (a list of case ids for every fold) and ``made_with``
            (software versions).

        Raises:
            MissingInputError: The file does not exist.
            InputError: The file is no JSON file, or lacks an entry.
        """
        if not self.test_plan.is_file():
            raise MissingInputError(
                f"{self.test_plan} does not exist; expected the test cases of all folds, a file that test writes."
            )
        plan = read_json(self.test_plan)
        if not isinstance(plan, dict) or not _is_list_of_folds(plan.get("test_cases")):
            raise InputError(
                f"{self.test_plan} has no list of the test cases of every fold; expected the file that test writes. "
                "Run the fold's test again."
            )
        return plan


@dataclass(frozen=True)
class ExperimentFolder:
    """Folder of an experiment, which contains a folder for each of its folds.

    Args:
        path: The folder, which does not have to exist.
    """

    path: Path

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.path.name

    @property
    def model(self) -> str:
        """Name of the experiment without its seed. Experiments that differ only in their seed are one model."""
        return split_seed_name(self.name)[0]

    @property
    def seed(self) -> int:
        """Seed in the name of the experiment; 0 if there is none."""
        return split_seed_name(self.name)[1]

    @property
    def metrics(self) -> Path:
        """CSV file of the test results of all folds."""
        return self.path / "cv_metrics.csv"

    @property
    def summary(self) -> Path:
        """CSV file of the means and standard deviations of the test results of all folds."""
        return self.path / "cv_summary.csv"

    def fold(self, number: int) -> FoldFolder:
        """Return the folder of a fold.

        Args:
            number: Number of the fold, from 0.

        Returns:
            The folder, which does not have to exist.
        """
        return FoldFolder(self.path / f"fold{number}")

    def folds(self) -> list[FoldFolder]:
        """Find the existing folders of folds, in the order of the fold numbers."""
        paths = sorted(self.path.glob("fold*/"), key=lambda path: (len(path.name), path.name))
        return [FoldFolder(path) for path in paths]

    def tested_folds(self) -> list[FoldFolder]:
        """Find the folders of all folds that have been tested."""
        return [fold for fold in self.folds() if fold.test_metrics.is_file()]


def _is_settings(path: Path) -> bool:
    """Return whether a file contains the settings of a run of this package."""
    try:
        settings = read_settings(path)
    except (OSError, InputError):
        return False
    return {"experiment", "data", "model"} <= settings.keys()


def _is_list_of_folds(value: Any) -> bool:
    """Return whether a value is a list of the names of cases for every fold."""
    return isinstance(value, list) and all(
        isinstance(fold, list) and all(isinstance(case, str) for case in fold) for fold in value
    )


def check_inside(option: str, value: str, folder: Path) -> None:
    """Check that a name stays inside a folder.

    Args:
        option: Option of the name.
        value: Name of a file or folder relative to the folder.
        folder: The folder.

    Raises:
        InputError: The name leads out of the folder, or is empty.
    """
    path = Path(os.path.normpath(folder / value))
    if path == Path(os.path.normpath(folder)) or not path.is_relative_to(os.path.normpath(folder)):
        raise InputError(f"{option} {value} is outside of {folder}; expected a name inside this folder.")


def check_determined(option: str, value: str | None, folder: Path) -> None:
    """Check that an option does not set a folder that the name of the experiment determines.

    Args:
        option: The option.
        value: Its value. Configurations of other runs contain their folders, which are accepted.
        folder: Folder that is used.

    Raises:
        InputError: The option sets another folder.
    """
    if value is not None and not any(re.fullmatch(r"fold\d+", part) for part in Path(value).parts[-2:]):
        raise InputError(
            f"{option} {value} cannot be used, since the files of this run are in {folder}; expected --output_dir and "
            "--experiment instead."
        )


def find_experiments(folders: Sequence[Path]) -> list[ExperimentFolder]:
    """Find experiments in folders.

    Args:
        folders: Folders of experiments, or folders that contain folders of experiments.

    Returns:
        The experiments. A folder without experiments is returned as well, so that reading it raises an error.
    """
    experiments: list[ExperimentFolder] = []
    for folder in folders:
        experiment = ExperimentFolder(folder)
        if experiment.folds():
            experiments.append(experiment)
        else:
            subfolders = [ExperimentFolder(path) for path in sorted(folder.glob("*/"))]
            experiments += [subfolder for subfolder in subfolders if subfolder.folds()] or [experiment]
    return list(dict.fromkeys(experiments))


def seeded_name(experiment: str, seed: int) -> str:
    """Return the name of an experiment with its seed."""
    return f"{experiment}_seed{seed}"


def split_seed_name(experiment: str) -> tuple[str, int]:
    """Split the name of an experiment into name and seed, the inverse of :func:`seeded_name`; the default seed is 0."""
    match = re.fullmatch(r"(.+)_seed(\d+)", experiment)
    return (match[1], int(match[2])) if match else (experiment, 0)
