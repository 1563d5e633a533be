"""Folds as jobs, which any engine can run, lose and run again."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from cm_lightning.crossval.states import describe_state, is_finished, number_of_folds
from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten
from cm_lightning.runs.settings import conflicting_settings


@dataclass
class Job:
    """A fold that is to be run: the description that all engines share.

    Attributes:
        argv: Arguments of fit and test without the fold.
        fold: Folder of the fold.
        index: Index of the fold.
        seed: Seed of the training.
        epochs: Number of epochs of the training.
        steps: Subcommands that have not been started yet, in order, each with its additional arguments.
    """

    argv: list[str]
    fold: FoldFolder
    index: int = 0
    seed: int | None = None
    epochs: int = 0
    steps: list[list[str]] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """What happens to the fold when the job runs, for messages."""
        return "resumes" if "--ckpt_path=auto" in self.steps[0] else "starts"

    def command(self) -> list[str]:
        """Return the command that runs this job, or continues it, on the machine on which it is started.

        Returns:
            Program and arguments, which lack the devices.
        """
        return [sys.executable, "-m", "cm_lightning", "crossval", *self.argv, f"--folds={self.index}"]

    def describe(self) -> str:
        """Describe the job in lines: its state, what will be run, and the command."""
        steps = ", ".join(step for step, *_ in self.steps)
        return (
            f"{self.fold.name}: seed {self.seed}, {describe_state(self.fold)}; {steps}; folder {self.fold.path}\n"
            f"  {shlex.join(['python', *self.command()[1:]])}"
        )


def raise_failures(failures: Sequence[tuple[Job, str]], total: int) -> None:
    """Raise an error that lists the jobs which failed, if there are any.

    Args:
        failures: The jobs, and why each of them failed.
        total: Number of all jobs.

    Raises:
        InputError: At least one job failed.
    """
    if failures:
        lines = [f"{job.fold.log}: {reason}" for job, reason in failures]
        raise InputError("\n".join([f"{len(failures)} of {total} folds failed:", *lines]))


def plan_jobs(
    argv: list[str], settings: Settings, experiment: ExperimentFolder, folds: list[int] | None, overwrite: bool
) -> list[Job]:
    """Create a job for every fold of an experiment that is not finished.

    Args:
        argv: Command line of fit without the fold.
        settings: Settings that ``argv`` resolves to, with dotted names.
        experiment: Folder of the experiment.
        folds: Indices of the folds to run; None for all.
        overwrite: Run finished folds again.

    Returns:
        The jobs.

    Raises:
        InputError: A fold does not exist, or a kept fold was run with other settings.
    """
    split, number = settings["data.split"], number_of_folds(settings)
    invalid = [fold for fold in folds or [] if not 0 <= fold < number]
    if invalid:
        raise InputError(f"The split {split} has the folds 0 to {number - 1}; found --folds {invalid}.")
    jobs = []
    for index in folds or range(number):
        fold = experiment.fold(index)
        job = Job(argv, fold, index, settings["seed_everything"], max(settings["trainer.max_epochs"] or 0, 0))
        if not overwrite:
            check_settings(fold, settings)
        if overwrite or fold.resumable_checkpoint() is None:
            job.steps = [["fit", "--overwrite=true"], ["test", "--ckpt_path=best"]]
        elif not is_finished(fold):
            job.steps = [["fit", "--ckpt_path=auto"], ["test", "--ckpt_path=best"]]
        if job.steps:
            jobs.append(job)
    return jobs


def check_settings(fold: FoldFolder, settings: Settings) -> None:
    """Check that a kept fold was run with the present settings.

    Args:
        fold: Folder of the fold.
        settings: Present settings, with dotted names.

    Raises:
        InputError: Settings differ; the message lists them.
    """
    if not fold.config.is_file():
        return
    conflicts = conflicting_settings(flatten(fold.read_settings()), settings)
    if conflicts:
        differences = "; ".join(f"{key} {old!r}, now {new!r}" for key, (old, new) in conflicts.items())
        raise InputError(
            f"{fold.path} was run with other settings ({differences}), and folds with different settings cannot be "
            "pooled. Choose another --experiment, or run all folds again with --overwrite."
        )
