"""Folds as processes, one on every device at a time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cm_lightning.data.splits import STUDY_FOLDS
from cm_lightning.errors import InputError
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten
from cm_lightning.runs.settings import conflicting_settings


@dataclass
class Job:
    """A fold of an experiment.

    Attributes:
        argv: Command line of its fit and test, without the subcommand.
        fold: The fold's folder.
        steps: What is still to be run, in order: a subcommand and its own arguments.
    """

    argv: list[str]
    fold: FoldFolder
    steps: list[list[str]] = field(default_factory=list)


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
        config = self.job.fold.config
        return self.step == "fit" and not (config.is_file() and config.stat().st_mtime >= self.since)


def plan_jobs(
    argv: list[str], settings: Settings, experiment: ExperimentFolder, folds: list[int] | None, overwrite: bool
) -> list[Job]:
    """Find what is left to do of an experiment's folds.

    Args:
        argv: Command line of fit.
        settings: Flat settings that it stands for.
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
    for index in folds or range(number):
        fold = experiment.fold(index)
        job = Job([*argv, f"--data.fold={index}"], fold)
        rows, last = fold.test_metrics, fold.last_checkpoint
        if not overwrite:
            check_settings(fold, settings)
        if overwrite or not last.is_file():
            job.steps = [["fit", "--overwrite=true"], ["test", "--ckpt_path=best"]]
        elif not rows.is_file() or rows.stat().st_mtime < last.stat().st_mtime:
            job.steps = [["fit", "--ckpt_path=last"], ["test", "--ckpt_path=best"]]
        if job.steps:
            jobs.append(job)
    return jobs


def check_settings(fold: FoldFolder, settings: Settings) -> None:
    """Check that a fold that is kept was run with the settings that are asked for now.

    Args:
        fold: The fold's folder.
        settings: Flat settings of today.

    Raises:
        InputError: It was not; the message names what differs.
    """
    if not fold.config.is_file():
        return
    conflicts = conflicting_settings(flatten(fold.read_settings()), settings)
    if conflicts:
        named = "; ".join(f"{key} {old!r}, now {new!r}" for key, (old, new) in conflicts.items())
        raise InputError(
            f"{fold.path} was run with other settings ({named}), and folds of two settings cannot be pooled. Choose "
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
                    console.print(f"{job.fold.name}: done after {(time.time() - state.started) / 60:.1f} min")
                else:
                    failed.append(job)
                    console.print(f"{job.fold.name}: failed, see {job.fold.log}")
            free = [slot for slot in range(len(devices)) if slot not in running]
            if waiting and free and not any(state.prepares for state in running.values()):
                job = waiting.pop(0)
                verb = "goes on" if "--ckpt_path=last" in job.steps[0] else "starts"
                console.print(f"{job.fold.name}: {verb} on {devices[free[0]]}")
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
        endings = "\n".join(f"{job.fold.log}: {last_line(job.fold.log)}" for job in failed)
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
    job.fold.log.parent.mkdir(parents=True, exist_ok=True)
    with job.fold.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cm_lightning", subcommand, *job.argv, *where, *more],
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
