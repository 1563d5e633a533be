"""``crossval``: train and test all folds of one or several configurations, and evaluate them together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cm_lightning.crossval.grid import Grid
from cm_lightning.errors import UsageError
from cm_lightning.parsing import make_parser


def crossval(
    config: list[Path] | None = None,
    grid: list[Path] | None = None,
    overlay: list[Path] | None = None,
    seeds: list[int] | None = None,
    split: Literal["study", "kfold", "official"] | None = None,
    folds: list[int] | None = None,
    devices: list[str] | None = None,
    overwrite: bool = False,
    engine: Literal["local", "ray", "slurm"] = "local",
    gpus_per_fold: int | None = None,
    cpus_per_fold: int | None = None,
    parallel: int | None = None,
    ray_address: str | None = None,
    slurm_options: list[str] | None = None,
    dry_run: bool = False,
    print_slurm: bool = False,
    status: Path | None = None,
    fit_arguments: Sequence[str] = (),
) -> None:
    """Train and test all folds, one process per fold, and evaluate them together.

    All other options are passed on to fit and test. After an interruption, run the same command again: finished folds
    are kept, and interrupted ones are resumed after their last epoch.

    Args:
        config: Configuration files, as for fit; the option may be repeated. The files of --grid override a --config
            before it (--config BASE --grid OVERLAY OVERLAY), and are overridden by a --config after it (--grid FULL
            FULL --config OVERLAY).
        grid: Several configuration files, each run with all folds as an experiment named after the file. A sweep file
            of Weights & Biases stands for all combinations of its parameters except the fold; its values override all
            other settings: --config BASE --grid SWEEP.
        overlay: Configuration files that override those of the grid; the same as a --config after --grid.
        seeds: Seeds of training. Every experiment is run with each of them, as EXPERIMENT_seed0, ...; the report
            averages over them. The split does not change (data.split_seed).
        split: Value of data.split.
        folds: Folds to run; all by default. If given, the folds are not evaluated together.
        devices: Devices that each run one fold at a time: GPUs (0 1), groups of GPUs (0,1 2,3) or processes on the CPU
            (cpu cpu). By default every visible GPU, or one process on the CPU.
        overwrite: Delete finished folds and run them again.
        engine: What runs the folds: processes of this machine (local), tasks of a Ray cluster (ray), or tasks of a
            SLURM job array (slurm). The nodes of a cluster must see the folders of this machine.
        gpus_per_fold: GPUs of a fold, for ray and slurm; 0 trains on the CPU. By default 1, and 0 for ray on a machine
            without a GPU.
        cpus_per_fold: CPU cores of a fold, for ray and slurm; by default 4.
        parallel: Largest number of folds at a time, for ray and slurm. Folds start in the order of the command line.
        ray_address: Address of the Ray cluster, or auto on one of its nodes; by default, one is started here.
        slurm_options: Further options of sbatch, such as partition=gpu time=24:00:00 nice=100.
        dry_run: Print the folds with their state, settings and commands, and run nothing.
        print_slurm: Print the script of the SLURM job array, and run nothing.
        status: Print the state of all folds in this folder, from any machine that sees it, and run nothing.
        fit_arguments: Arguments of fit and test that all folds share.
    """
    if status is not None:
        from cm_lightning.crossval.states import show_status

        show_status(status)
        return
    configurations = Grid(config or [], grid or [], overlay or [])
    if configurations == Grid([]):
        raise UsageError("crossval needs a configuration; expected --config or --grid.")
    arguments = [*fit_arguments, *([f"--data.split={split}"] if split else [])]
    chosen = "slurm" if print_slurm else engine
    cluster = {"gpus_per_fold": gpus_per_fold, "cpus_per_fold": cpus_per_fold, "parallel": parallel}
    _check_engine(chosen, {"ray", "slurm"}, cluster)
    _check_engine(chosen, {"ray"}, {"ray_address": ray_address})
    _check_engine(chosen, {"slurm"}, {"slurm_options": slurm_options})
    _check_engine(chosen, {"local"}, {"devices": devices})

    from cm_lightning.crossval.command import crossval
    from cm_lightning.crossval.resources import FoldResources

    crossval(
        configurations,
        arguments,
        seeds,
        folds,
        devices,
        overwrite,
        engine,
        FoldResources(gpus_per_fold, 4 if cpus_per_fold is None else cpus_per_fold, parallel),
        ray_address,
        [f"--{option.removeprefix('--')}" for option in slurm_options or []],
        "describe" if dry_run else "print_slurm" if print_slurm else "run",
    )


def _check_engine(chosen: str, needed: set[str], options: dict[str, Any]) -> None:
    """Check that no option was given that the engine does not have."""
    for name, value in options.items():
        if value is not None and chosen not in needed:
            raise UsageError(
                f"--{name} is an option of --engine {' and '.join(sorted(needed))}; the engine is {chosen}."
            )


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """Split a command line into the options of ``crossval`` and those of ``fit``.

    Args:
        argv: Command line after ``crossval``.

    Returns:
        Arguments of :func:`crossval` by name.

    Raises:
        UsageError: An option has an invalid value, or --grid was given twice.
    """
    parser = make_parser("crossval", crossval, skip=["fit_arguments"])
    options = {option for action in parser._actions for option in action.option_strings}
    crossval_arguments: list[str] = []
    fit_arguments: list[str] = []
    configs: dict[str, list[str]] = {"--config": [], "--overlay": []}
    target, key = fit_arguments, "--config"
    for argument in argv:
        name, equals, value = argument.partition("=")
        if name == "--config":
            target = configs[key]
            target += [value] if equals else []
            continue
        if name == "--grid":
            if key == "--overlay":
                raise UsageError("--grid was given twice; expected one --grid with all files.")
            key = "--overlay"
        if argument.startswith("--") or name in options:  # not a negative number
            target = crossval_arguments if name in options else fit_arguments
        target.append(argument)
    for name, paths in configs.items():
        crossval_arguments += [name, *paths] if paths else []
    return {**parser.parse_args(crossval_arguments).as_dict(), "fit_arguments": fit_arguments}


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``crossval``.
    """
    crossval(**parse(argv))
