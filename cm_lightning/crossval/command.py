"""Cross-validation from beginning to end: plan, run, pool, show."""

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
    """An experiment whose folds are to be run.

    Attributes:
        argv: Command line of its ``fit``, without the fold.
        settings: Flat settings that it stands for.
    """

    argv: list[str]
    settings: Settings

    @property
    def folder(self) -> ExperimentFolder:
        """Where its folds lie."""
        return ExperimentFolder(Path(self.settings["output_dir"]) / self.settings["experiment"])

    @property
    def tracking(self) -> WandbSettings:
        """Where its runs are shown."""
        return WandbSettings(**{field.name: self.settings[f"wandb.{field.name}"] for field in fields(WandbSettings)})


def crossval(
    grid: Grid,
    rest: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    folds: list[int] | None = None,
    devices: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Run a cross-validation, or several; finished folds are kept, interrupted ones go on.

    Args:
        grid: Configurations.
        rest: Further arguments of ``fit`` and ``test``.
        seeds: Run every experiment with each of these seeds; with the configuration's by default.
        folds: Only these folds, without pooled evaluation; all by default.
        devices: Where folds run, one on each at a time: numbers of GPUs (several separated by commas), or ``cpu``.
            Every visible GPU by default, or the CPU.
        overwrite: Run all folds anew.

    Raises:
        InputError: Settings that differ from those of folds that are kept, folds that do not exist, or folds that
            failed.
    """
    experiments = plan_experiments(grid, rest, seeds)
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


def plan_experiments(grid: Grid, rest: Sequence[str], seeds: Sequence[int] | None) -> list[Experiment]:
    """Resolve the settings of every experiment.

    Args:
        grid: Configurations.
        rest: Further arguments of ``fit``.
        seeds: Seeds that every experiment is run with, or None for the configuration's.

    Returns:
        The experiments.

    Raises:
        InputError: ``fit`` does not take the settings, or two experiments have one name.
    """
    experiments: list[Experiment] = []
    for argv in grid.command_lines(rest, seeds):
        settings = resolve_settings(argv)
        if seeds is None:
            experiments.append(Experiment(argv, settings))
            continue
        for seed in seeds:
            name = seeded_name(settings["experiment"], seed)
            seeded = {"seed_everything": seed, "experiment": name}
            own = [f"--{key}={value}" for key, value in seeded.items()]
            experiments.append(Experiment([*argv, *own], settings | seeded))
    names = [experiment.folder.name for experiment in experiments]
    if len({experiment.folder for experiment in experiments}) < len(experiments):
        raise InputError(f"The grid names an experiment twice: {names}; expected each once.")
    return experiments
