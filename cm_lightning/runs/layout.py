"""Names of the files and folders of runs: ``<output_dir>/<experiment>/fold<k>``, and what lies in them."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.runs.settings import read_settings

# Checkpoints by name: of the best validation, and of the last finished epoch.
BEST, LAST = "best", "last"
CONFIG_FILE = "config.yaml"
TEST_METRICS_FILE = "test_metrics.csv"


@dataclass(frozen=True)
class FoldFolder:
    """The folder of one fold of an experiment: of one training, its tests and predictions.

    Args:
        path: The folder; it need not be there yet.
    """

    path: Path

    @property
    def name(self) -> str:
        """Experiment and fold, such as ``muscle_2ch/fold0``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def experiment(self) -> "ExperimentFolder":
        """The experiment that the fold belongs to."""
        return ExperimentFolder(self.path.parent)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> Path:
        """Weights of the best validation."""
        return self.checkpoints / f"{BEST}.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Weights of the last finished epoch."""
        return self.checkpoints / f"{LAST}.ckpt"

    @property
    def config(self) -> Path:
        """Settings of the training."""
        return self.path / CONFIG_FILE

    @property
    def metrics(self) -> Path:
        """What was logged, a row a step at which something was."""
        return self.path / "metrics.csv"

    @property
    def test_metrics(self) -> Path:
        """Rows of the test, one per case, class and metric; a fold that has them has been tested."""
        return self.path / TEST_METRICS_FILE

    @property
    def test_summary(self) -> Path:
        """Means and spreads of the test."""
        return self.path / "test_summary.csv"

    @property
    def test_levels(self) -> Path:
        """Counts of right and wrong voxels of the test by confidence and depth."""
        return self.path / "test_levels.csv"

    @property
    def test_calibration(self) -> Path:
        """Sums of the test by stated probability."""
        return self.path / "test_calibration.csv"

    @property
    def test_cases(self) -> Path:
        """Cases of the test, the worst first."""
        return self.path / "test_cases.csv"

    @property
    def test_confusion(self) -> Path:
        """Voxels of the test by label and prediction."""
        return self.path / "test_confusion.csv"

    @property
    def test_plan(self) -> Path:
        """Test cases of all folds of the split, and the versions that the test was made with."""
        return self.path / "test_plan.json"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "pictures"

    def test_picture(self, case: str) -> Path:
        """Name the picture of a case that was among the worst of the test.

        Args:
            case: The case's id.

        Returns:
            A PNG file.
        """
        return self.pictures / f"test_{case}.png"

    @property
    def predictions(self) -> Path:
        """Folder of the predictions."""
        return self.path / "predictions"

    @property
    def tensorboard(self) -> Path:
        """Folder of what TensorBoard shows."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """What the fold's processes print during a cross-validation."""
        return self.path.parent / f"{self.path.name}.log"

    def settings_of(self, stage: str) -> Path:
        """Name the file of a stage's settings; those of a training stay beside those of its tests.

        Args:
            stage: "fit", "validate", "test" or "predict".

        Returns:
            A YAML file.
        """
        return self.config if stage == "fit" else self.path / f"{stage}_{CONFIG_FILE}"

    def find_checkpoint(self, name: str) -> Path:
        """Find a checkpoint by its name, or by its path.

        Args:
            name: "best" or "last" of this run, or the path of a file.

        Returns:
            The file.

        Raises:
            MissingInputError: There is none.
        """
        path = {BEST: self.best_checkpoint, LAST: self.last_checkpoint}.get(name, Path(name))
        if not path.is_file():
            raise MissingInputError(
                f"There is no checkpoint {path} (--ckpt_path {name}); expected one that an earlier fit with this "
                "--experiment, --output_dir and --data.fold wrote. To start afresh, leave --ckpt_path away."
            )
        return path

    def make_room(self, overwrite: bool) -> None:
        """Remove an earlier run, so that nothing of it passes for the new one's.

        Args:
            overwrite: Whether an earlier run may be removed.

        Raises:
            InputError: It may not, and there is one.
        """
        if not self.checkpoints.is_dir():
            return
        if not overwrite:
            raise InputError(
                f"{self.path} already holds a run. Resume it with --ckpt_path last, replace it with --overwrite true, "
                "or choose another --experiment."
            )
        for folder in (self.checkpoints, self.pictures, self.predictions, self.path / "wandb", self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in [*self.path.glob("*.csv"), *self.path.glob(f"*{CONFIG_FILE}"), *self.path.glob("*.json")]:
            file.unlink()

    def read_settings(self) -> dict[str, Any]:
        """Read the settings of the training, nested as fit wrote them.

        Returns:
            The settings.

        Raises:
            MissingInputError: There are none.
        """
        if not self.config.is_file():
            raise MissingInputError(f"There is no {self.config}; expected the settings that fit wrote there.")
        return read_settings(self.config)

    def read_test_plan(self) -> dict[str, Any]:
        """Read which cases are tested in which fold.

        Returns:
            ``split``, ``split_seed``, ``fold``, ``test_cases`` (a list of case ids for every fold) and ``made_with``.

        Raises:
            MissingInputError: There is no plan.
            InputError: It is no JSON.
        """
        if not self.test_plan.is_file():
            raise MissingInputError(
                f"There is no {self.test_plan}; expected the plan of the folds that test writes beside its rows."
            )
        try:
            plan: dict[str, Any] = json.loads(self.test_plan.read_text())
        except ValueError as error:
            raise InputError(f"{self.test_plan} cannot be read as JSON: {error}. Run the fold's test again.") from error
        return plan


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder of an experiment, with a folder for each of its folds.

    Args:
        path: The folder; it need not be there yet.
    """

    path: Path

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.path.name

    @property
    def model(self) -> str:
        """The experiment's name without its seed: experiments that differ in their seed alone are one model."""
        return split_seed_name(self.name)[0]

    @property
    def seed(self) -> int:
        """The seed in the experiment's name; 0 without one."""
        return split_seed_name(self.name)[1]

    @property
    def metrics(self) -> Path:
        """Rows of the tests of all folds."""
        return self.path / "cv_metrics.csv"

    @property
    def summary(self) -> Path:
        """Means and spreads over all folds."""
        return self.path / "cv_summary.csv"

    def fold(self, number: int) -> FoldFolder:
        """Name the folder of a fold.

        Args:
            number: Which fold.

        Returns:
            The folder.
        """
        return FoldFolder(self.path / f"fold{number}")

    def folds(self) -> list[FoldFolder]:
        """Find the folders of all folds."""
        paths = sorted(self.path.glob("fold*/"), key=lambda path: (len(path.name), path.name))  # fold2 before fold10
        return [FoldFolder(path) for path in paths]

    def tested_folds(self) -> list[FoldFolder]:
        """Find the folders of the folds that have been tested."""
        return [fold for fold in self.folds() if fold.test_metrics.is_file()]


def find_experiments(folders: Sequence[Path]) -> list[ExperimentFolder]:
    """Find experiments.

    Args:
        folders: Folders of experiments, or folders one level above such.

    Returns:
        The experiments; a folder that holds none is given back, so that whoever reads it says so.
    """
    experiments: list[ExperimentFolder] = []
    for folder in folders:
        experiment = ExperimentFolder(folder)
        if experiment.folds():
            experiments.append(experiment)
        else:
            below = [ExperimentFolder(path) for path in sorted(folder.glob("*/"))]
            experiments += [inner for inner in below if inner.folds()] or [experiment]
    return list(dict.fromkeys(experiments))


def seeded_name(experiment: str, seed: int) -> str:
    """Name an experiment that is one of several with different seeds."""
    return f"{experiment}_seed{seed}"


def split_seed_name(experiment: str) -> tuple[str, int]:
    """Undo :func:`seeded_name`; an experiment without a seed in its name has the seed 0."""
    match = re.fullmatch(r"(.+)_seed(\d+)", experiment)
    return (match[1], int(match[2])) if match else (experiment, 0)
