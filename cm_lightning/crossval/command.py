"""Cross-validation: plan the experiments, run their folds, and pool and log the results."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from cm_lightning.cli import resolve_settings
from cm_lightning.crossval.grid import Grid
from cm_lightning.crossval.jobs import plan_jobs, run_jobs
from cm_lightning.crossval.summary import write_summary
from cm_lightning.crossval.summary_run import log_summary_run
from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder, Settings
from cm_lightning.runs.layout import seeded_name
from cm_lightning.tracking.policy import WandbSettings


@dataclass(frozen=True)
class Experiment:
    """An experiment of a cross-validation.

    Attributes:
        argv: Command line of ``fit`` without the fold.
        settings: Settings that ``argv`` resolves to, with dotted names.
    """

    argv: list[str]
    settings: Settings

    @property
    def folder(self) -> ExperimentFolder:
        """The folder of the experiment."""
        return ExperimentFolder(Path(self.settings["output_dir"]) / self.settings["experiment"])

    @property
    def tracking(self) -> WandbSettings:
        """The W&B settings of the experiment."""
        return WandbSettings(**{field.name: self.settings[f"wandb.{field.name}"] for field in fields(WandbSettings)})


def crossval(
    grid: Grid,
    fit_arguments: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    folds: list[int] | None = None,
    devices: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Run one or several cross-validations; finished folds are kept and interrupted ones are resumed.

    Args:
        grid: Configurations.
        fit_arguments: Further arguments of ``fit`` and ``test``.
        seeds: Seeds of training, each of which makes a separate experiment; by default the seed of the configuration.
        folds: Folds to run, without pooled evaluation; all folds with pooled evaluation by default.
        devices: Devices that each run one fold at a time: indices of GPUs (several separated by commas), or ``cpu``.
            By default every visible GPU, or one process on the CPU.
        overwrite: Delete finished folds and run them again.

    Raises:
        InputError: Finished folds were run with other settings, a fold does not exist, or a fold failed.
    """
    experiments = plan_experiments(grid, fit_arguments, seeds)
    jobs = [
        job
        for experiment in experiments
        for job in plan_jobs(experiment.argv, experiment.settings, experiment.folder, folds, overwrite)
    ]
    run_jobs(jobs, devices or [str(index) for index in range(torch.cuda.device_count())] or ["cpu"])
    if folds is None:
        for experiment in experiments:
            write_summary(experiment.folder)
            log_summary_run(experiment.folder, experiment.tracking)
        folders = [str(experiment.folder.path) for experiment in experiments]
        print(f"The results are in {', '.join(folders)}; cv_summary.csv contains means and SD.")
        print(f"Next: python -m cm_lightning report {shlex.join(folders)}")


def plan_experiments(grid: Grid, fit_arguments: Sequence[str], seeds: Sequence[int] | None) -> list[Experiment]:
    """Resolve the settings of every experiment.

    Args:
        grid: Configurations.
        fit_arguments: Further arguments of ``fit``.
        seeds: Seeds of training, each of which makes a separate experiment; None for the seed of the configuration.

    Returns:
        The experiments.

    Raises:
        InputError: ``fit`` does not accept the settings, or two experiments have the same name.
    """
    experiments: list[Experiment] = []
    for argv in grid.command_lines(fit_arguments, seeds):
        settings = resolve_settings(argv)
        if seeds is None:
            experiments.append(Experiment(argv, settings))
            continue
        for seed in seeds:
            name = seeded_name(settings["experiment"], seed)
            seeded = {"seed_everything": seed, "experiment": name}
            options = [f"--{key}={value}" for key, value in seeded.items()]
            experiments.append(Experiment([*argv, *options], settings | seeded))
    names = [experiment.folder.name for experiment in experiments]
    if len({experiment.folder for experiment in experiments}) < len(experiments):
        raise InputError(f"Two experiments of the grid have the same name: {names}; expected unique names.")
    return experiments
