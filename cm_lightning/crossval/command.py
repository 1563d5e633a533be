"""Cross-validation: plan the experiments, run their folds, and pool and log the results."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch

from cm_lightning.cli import resolve_settings
from cm_lightning.crossval.grid import Grid
from cm_lightning.crossval.jobs import Job, plan_jobs
from cm_lightning.crossval.local import check_devices, run_jobs
from cm_lightning.crossval.ray_cluster import run_on_ray
from cm_lightning.crossval.resources import FoldResources
from cm_lightning.crossval.slurm import array_script, submit
from cm_lightning.crossval.summary import write_summary
from cm_lightning.crossval.summary_run import log_summary_run
from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder, Settings
from cm_lightning.runs.layout import seeded_name
from cm_lightning.tracking.policy import WandbSettings

Engine = Literal["local", "ray", "slurm"]
Action = Literal["run", "describe", "print_slurm"]


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
    engine: Engine = "local",
    resources: FoldResources | None = None,
    ray_address: str | None = None,
    slurm_options: Sequence[str] = (),
    action: Action = "run",
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
        engine: What runs the folds: processes of this machine (``local``), tasks of a Ray cluster (``ray``), or tasks
            of a SLURM job array (``slurm``).
        resources: Resources of a fold on a cluster; None for the default ones.
        ray_address: Address of the Ray cluster; None starts one on this machine.
        slurm_options: Further options of ``sbatch``.
        action: Run the folds, describe them, or print the script of the SLURM job array.

    Raises:
        InputError: Finished folds were run with other settings, a fold does not exist, a fold failed, or the devices or
            the cluster do not exist.
    """
    experiments = plan_experiments(grid, fit_arguments, seeds)
    jobs = [
        job
        for experiment in experiments
        for job in plan_jobs(experiment.argv, experiment.settings, experiment.folder, folds, overwrite)
    ]
    resources = resources or FoldResources()
    if resources.gpus is None:
        resources = replace(resources, gpus=0 if engine == "ray" and not torch.cuda.is_available() else 1)
    match action:
        case "describe":
            _describe(jobs)
        case "print_slurm":
            if overwrite:
                raise InputError(
                    "--print_slurm only prints, and cannot be combined with --overwrite true; expected --engine slurm."
                )
            print(array_script(_not_finished(jobs), resources, slurm_options), end="")
        case "run" if engine == "slurm":
            _remove_finished(jobs, overwrite)
            folder = experiments[0].folder.path
            script = array_script(_not_finished(jobs), resources, slurm_options)
            submit(script, folder, [experiment.argv for experiment in experiments] if folds is None else [])
            print(f"Next: python -m cm_lightning crossval --status {shlex.quote(str(folder.parent))}")
        case "run":
            if engine == "ray":
                _remove_finished(jobs, overwrite)
                run_on_ray(jobs, resources, ray_address)
            else:
                devices = devices or [str(index) for index in range(torch.cuda.device_count())] or ["cpu"]
                check_devices(devices)
                run_jobs(jobs, devices)
            if folds is None:
                _evaluate(experiments)


def _evaluate(experiments: Sequence[Experiment]) -> None:
    """Pool the folds of every experiment, and print where the results are."""
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


def _describe(jobs: Sequence[Job]) -> None:
    """Print the jobs."""
    for job in jobs:
        print(job.describe())
    print(f"{len(jobs)} folds would be run." if jobs else "All folds are finished; nothing would be run.")


def _remove_finished(jobs: Sequence[Job], overwrite: bool) -> None:
    """Remove earlier runs before the tasks of a cluster start, which must not do it again when they are retried."""
    for job in jobs:
        if overwrite and job.fold.path.is_dir():
            job.fold.remove_earlier_run(overwrite=True)


def _not_finished(jobs: Sequence[Job]) -> Sequence[Job]:
    """Return the jobs, if there are any."""
    if not jobs:
        raise InputError(
            "All folds are finished, so that there is nothing to submit; --overwrite true runs them again."
        )
    return jobs
