"""Cross-validation: one process a fold, over the devices; resumable; then one pooled evaluation."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from rich.console import Console
from rich.table import Table

from cm_lightning.data.splits import STUDY_FOLDS
from cm_lightning.errors import InputError
from cm_lightning.evaluation.pooling import ROWS_FILE, pool_folds, seeded_name, summarise_folds
from cm_lightning.evaluation.summary_run import log_summary_run
from cm_lightning.metrics import METRICS
from cm_lightning.settings import MAY_DIFFER, Settings, flatten
from cm_lightning.sweeps import SEED, Combination, combination_name, combination_words, read_combinations
from cm_lightning.tracking import WandbSettings


@dataclass
class Job:
    """A fold of an experiment.

    Attributes:
        words: Command line of its fit and test, without the subcommand.
        folder: The fold's folder.
        steps: What is still to be run, in order.
    """

    words: list[str]
    folder: Path
    steps: list[list[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Experiment and fold."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.folder.parent / f"{self.folder.name}.log"


@dataclass
class Running:
    """A job that is on a device.

    Attributes:
        job: Which.
        process: Its current process.
        step: What it does, "fit" or "test".
        since: When this step began, in seconds since 1970.
        started: When the job began.
    """

    job: Job
    process: subprocess.Popen[bytes]
    step: str
    since: float
    started: float

    @property
    def prepares(self) -> bool:
        """Whether it may still be writing what the folds share: phantom, split and confidence maps."""
        # Lightning saves the settings once data are prepared.
        config = self.job.folder / "config.yaml"
        return self.step == "fit" and not (config.is_file() and config.stat().st_mtime >= self.since)


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take crossval's own words from a command line; all others are those of ``fit``."""
    parser = argparse.ArgumentParser(
        prog="cm_lightning crossval",
        description="Run the folds of a configuration, one process each, and evaluate them together. Everything else "
        "on the command line goes to fit and test. Run it again after an interruption: finished folds are kept, the "
        "others go on from their last epoch.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="append", default=[], type=Path, help="As for fit; may be repeated.")
    parser.add_argument(
        "--grid",
        nargs="+",
        action=Grid,
        default=[],
        type=Path,
        help="Several configurations, each with all folds and named after its file. As with --config, what comes later "
        "on the command line overrides: --config BASE --grid OVERLAY OVERLAY, or --grid FULL FULL --config OVERLAY. "
        "A sweep file of Weights & Biases stands for all combinations of its parameters but the fold, which are given "
        "to fit last: --config BASE --grid SWEEP.",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="Train everything with each of these seeds, as experiments EXPERIMENT_seed0, ...; the report averages "
        "over them. The folds are the same (data.split_seed).",
    )
    parser.add_argument("--split", choices=["study", "kfold", "official"], help="As data.split.")
    parser.add_argument("--folds", nargs="+", type=int, help="Only these folds; then there is no pooled evaluation.")
    parser.add_argument(
        "--devices",
        nargs="+",
        help="GPUs to use, a fold on each: 0 1; several for one fold: 0,1 2,3. cpu, or cpu cpu for two folds at a "
        "time. By default every visible GPU, or the CPU.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Run all folds anew.")
    own, rest = parser.parse_known_args(list(words))
    if not (own.config or own.grid):
        parser.error("expected --config or --grid")
    if own.devices is None:
        own.devices = [str(index) for index in range(torch.cuda.device_count())] or ["cpu"]
    return own, rest


def command_lines(own: argparse.Namespace, rest: Sequence[str]) -> list[list[str]]:
    """Give the command line of every experiment of a grid.

    Args:
        own: What :func:`parse` took.
        rest: And what it left.

    Returns:
        Words of ``fit``; one command line where there is no grid.

    Raises:
        InputError: A sweep in the grid cannot be expanded, has nothing to change, or brings seeds beside ``--seeds``.
    """
    shared = [f"--config={path}" for path in own.config]
    if not own.grid:
        return [[*shared, *rest]]
    before, after = shared[: own.configs_before_grid], shared[own.configs_before_grid :]
    lines: list[list[str]] = []
    for path in own.grid:
        combinations = read_combinations(path)
        if combinations is None:
            lines.append([*before, f"--config={path}", *after, f"--experiment={path.stem}", *rest])
            continue
        _refuse_sweep(path, combinations, own)
        for combination in combinations:
            # Values come last, as an agent gives them: the experiment's name says that they hold.
            name = f"--experiment={path.stem}{combination_name(combination)}"
            lines.append([*shared, name, *rest, *combination_words(combination)])
    return lines


def _refuse_sweep(path: Path, combinations: list[Combination], own: argparse.Namespace) -> None:
    """Check that a sweep can be run with the other words."""
    if not own.config:
        raise InputError(
            f"The sweep {path} says only what to vary; expected what it varies: --config BASE --grid {path}."
        )
    if own.seeds is not None and SEED in combinations[0]:
        raise InputError(f"{path} has values of {SEED}, and so has --seeds {own.seeds}; expected one of the two.")


class Grid(argparse.Action):
    """Keep the grid's files, and how many of the other configurations came before them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Take the grid."""
        if namespace.grid:
            parser.error("expected --grid once, with all its files")
        namespace.grid = values
        namespace.configs_before_grid = len(namespace.config)


def crossval(words: Sequence[str], resolve: Callable[[list[str]], Settings]) -> None:
    """Run a cross-validation, or several.

    Args:
        words: Command line after ``crossval``.
        resolve: Gives the flat settings that a command line of ``fit`` stands for.

    Raises:
        InputError: Settings that differ from those of folds that are kept, folds that do not exist, or folds that
            failed.
    """
    own, rest = parse(words)
    if own.split:
        rest = [*rest, f"--data.split={own.split}"]
    jobs: list[Job] = []
    experiments: list[Path] = []
    for words in command_lines(own, rest):
        settings = resolve(words)
        if own.seeds is None:
            variants = [(words, settings)]
        else:
            variants = [
                (
                    [*words, f"--seed_everything={seed}", f"--experiment={name}"],
                    settings | {"seed_everything": seed, "experiment": name},
                )
                for seed in own.seeds
                for name in [seeded_name(settings["experiment"], seed)]
            ]
        for line, asked in variants:
            experiments.append(Path(asked["output_dir"]) / asked["experiment"])
            tracking = WandbSettings(**{field.name: asked[f"wandb.{field.name}"] for field in fields(WandbSettings)})
            jobs += plan_jobs(line, asked, experiments[-1], own.folds, own.overwrite)
    if len(set(experiments)) < len(experiments):
        names = [path.name for path in experiments]
        raise InputError(f"The grid names an experiment twice: {names}; expected each once.")
    run_jobs(jobs, own.devices)
    for experiment in experiments:
        if own.folds is None:
            report(experiment)
            log_summary_run(experiment, tracking)


def plan_jobs(
    words: list[str], settings: Settings, experiment: Path, folds: list[int] | None, overwrite: bool
) -> list[Job]:
    """Find what is left to do of an experiment's folds.

    Args:
        words: Command line of fit.
        settings: What it stands for.
        experiment: The experiment's folder.
        folds: Which folds; all by default.
        overwrite: Run them anew.

    Returns:
        A job for every fold that is not finished.

    Raises:
        InputError: There is no such fold, or a kept fold was run with other settings.
    """
    split = settings["data.split"]
    number = {"study": STUDY_FOLDS, "kfold": settings["data.n_folds"], "official": 1}[split]
    wrong = [fold for fold in folds or [] if not 0 <= fold < number]
    if wrong:
        raise InputError(f"The split {split} has the folds 0 to {number - 1}; found --folds {wrong}.")
    jobs = []
    for fold in folds or range(number):
        job = Job([*words, f"--data.fold={fold}"], experiment / f"fold{fold}")
        rows, last = job.folder / ROWS_FILE, job.folder / "checkpoints" / "last.ckpt"
        if not overwrite:
            refuse_other_settings(job.folder, settings)
        if overwrite or not last.is_file():
            job.steps = [["fit", "--overwrite=true"], ["test", "--ckpt_path=best"]]
        elif not rows.is_file() or rows.stat().st_mtime < last.stat().st_mtime:
            job.steps = [["fit", "--ckpt_path=last"], ["test", "--ckpt_path=best"]]
        if job.steps:
            jobs.append(job)
    return jobs


def refuse_other_settings(folder: Path, settings: Settings) -> None:
    """Check that a fold that is kept was run with the settings that are asked for now.

    Args:
        folder: The fold's folder.
        settings: Flat settings of today.

    Raises:
        InputError: It was not; the message names what differs.
    """
    stored = folder / "config.yaml"
    if not stored.is_file():
        return
    before = flatten(yaml.safe_load(stored.read_text()))
    differing = {
        key: (before[key], settings[key])
        for key in before.keys() & settings.keys()
        if before[key] != settings[key] and key not in MAY_DIFFER
    }
    if differing:
        named = "; ".join(f"{key} {old!r}, now {new!r}" for key, (old, new) in sorted(differing.items()))
        raise InputError(
            f"{folder} was run with other settings ({named}), and folds of two settings cannot be pooled. Choose "
            "another --experiment, or run all folds anew with --overwrite."
        )


def run_jobs(jobs: list[Job], devices: list[str]) -> None:
    """Run jobs, one on every device at a time; what the folds share is prepared by one of them at a time.

    Args:
        jobs: What to run.
        devices: Where.

    Raises:
        InputError: Jobs failed; the others were run all the same.
    """
    console = Console()
    waiting, running, failed = list(jobs), dict[int, Running](), list[Job]()
    # The folds have sessions of their own: a scheduler's SIGTERM must reach them as Ctrl-C does. What a script starts
    # in the background ignores SIGINT, and would hand that down to the folds.
    stopping = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.default_int_handler) for number in stopping]
    try:
        while waiting or running:
            for slot, state in list(running.items()):
                code = state.process.poll()
                if code is None:
                    continue
                del running[slot]
                job = state.job
                if code == 0 and job.steps:
                    running[slot] = start(job, devices[slot], state.started, len(devices))
                elif code == 0:
                    console.print(f"{job.name}: done after {(time.time() - state.started) / 60:.1f} min")
                else:
                    failed.append(job)
                    console.print(f"{job.name}: failed, see {job.log}")
            free = [slot for slot in range(len(devices)) if slot not in running]
            if waiting and free and not any(state.prepares for state in running.values()):
                job = waiting.pop(0)
                verb = "goes on" if "--ckpt_path=last" in job.steps[0] else "starts"
                console.print(f"{job.name}: {verb} on {devices[free[0]]}")
                running[free[0]] = start(job, devices[free[0]], time.time(), len(devices))
            time.sleep(0.2)
    finally:
        for state in running.values():
            # As Ctrl-C would: Lightning leaves the last epoch's checkpoint.
            state.process.send_signal(signal.SIGINT)
        for state in running.values():
            state.process.wait()
        for number, handler in zip(stopping, before, strict=True):
            signal.signal(number, handler)
    if failed:
        endings = "\n".join(f"{job.log}: {last_line(job.log)}" for job in failed)
        raise InputError(f"{len(failed)} of {len(jobs)} folds failed:\n{endings}")


def start(job: Job, device: str, started: float, beside: int) -> Running:
    """Start a job's next step on a device, one of ``beside`` at a time."""
    subcommand, *more = job.steps.pop(0)
    environment = dict(os.environ)
    if device == "cpu":
        where = ["--trainer.accelerator=cpu"]
        # Processes that each take all cores slow one another down several times.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // beside)))
    else:
        environment["CUDA_VISIBLE_DEVICES"] = device
        # Testing takes one process: with several, the sampler would repeat cases to fill the last batch.
        number = len(device.split(",")) if subcommand == "fit" else 1
        where = ["--trainer.accelerator=gpu", f"--trainer.devices={number}"]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cm_lightning", subcommand, *job.words, *where, *more],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches this process alone, which passes it on once.
            start_new_session=True,
        )
    return Running(job, process, subcommand, time.time(), started)


def last_line(path: Path) -> str:
    """Give the last line of a log that says anything."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "(empty)"


def report(experiment: Path) -> None:
    """Pool the folds of an experiment, write its tables and print the summary.

    Args:
        experiment: The experiment's folder; ``cv_metrics.csv`` and ``cv_summary.csv`` are written to it.
    """
    rows = pool_folds(experiment)
    summaries = {policy: summarise_folds(rows, policy) for policy in ("worst", "detected")}
    rows.to_csv(experiment / "cv_metrics.csv", index=False)
    pd.concat([table.assign(policy=policy) for policy, table in summaries.items()]).to_csv(
        experiment / "cv_summary.csv", index=False
    )
    # With and without post-processing are two models.
    summary = summaries["worst"]
    for model in dict.fromkeys(rows["model"]):
        Console().print(_table(rows[rows["model"] == model], summary[summary["model"] == model]))


def _table(rows: pd.DataFrame, summary: pd.DataFrame) -> Table:
    mean = summary[summary["class"] == "mean"].set_index("metric")
    grouping, unit = rows["grouping"].iloc[0], rows["unit"].iloc[0]
    table = Table(
        title=f"{rows['model'].iloc[0]}: {rows['fold'].nunique()} folds, {rows['patient'].nunique()} "
        f"{grouping.split(' (')[0]}s, {rows['case'].nunique()} cases, mean over classes",
        caption=f"Grouped by {grouping}. {mean['failures'].iloc[0]} times a class was lost or invented; it counts "
        "with its worst value.",
    )
    for column in ("metric", "mean", "SD over patients", "SD over folds"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, metric in METRICS.items():
        if name in mean.index:
            row = mean.loc[name]
            cells = (f"{row[column]:.3f}" for column in ("mean", "sd_patients", "sd_folds"))
            table.add_row(metric.heading(unit), *cells)
    return table
