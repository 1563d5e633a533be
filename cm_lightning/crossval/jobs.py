"""Folds as separate processes, one per device at a time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from cm_lightning.crossval.progress import INTERVAL, FoldProgress
from cm_lightning.data.splits import STUDY_FOLDS
from cm_lightning.errors import InputError
from cm_lightning.interruption import Terminated, end_with_parent
from cm_lightning.runs import ExperimentFolder, FoldFolder, Settings, flatten
from cm_lightning.runs.lock import LOCK_FILE
from cm_lightning.runs.settings import conflicting_settings

CONTINUATION = (
    "crossval was interrupted. Finished folds and the last epoch of the others are kept; the same command continues."
)


@dataclass
class Job:
    """A fold that is to be run.

    Attributes:
        argv: Arguments of fit and test.
        fold: Folder of the fold.
        epochs: Number of epochs of the training.
        steps: Subcommands that have not been started yet, in order, each with its additional arguments.
    """

    argv: list[str]
    fold: FoldFolder
    epochs: int
    steps: list[list[str]] = field(default_factory=list)


@dataclass
class Running:
    """A job that is being run.

    Attributes:
        job: The job.
        process: Process of the current step.
        step: Current step, "fit" or "test".
        step_started: Start of the step, in seconds since 1970.
        job_started: Start of the job, in seconds since 1970.
    """

    job: Job
    process: subprocess.Popen[bytes]
    step: str
    step_started: float
    job_started: float

    @property
    def may_prepare_data(self) -> bool:
        """Whether the job may still be writing files that folds share: phantom, split and confidence maps."""
        # Lightning saves the settings after it has prepared the data.
        config = self.job.fold.config
        return self.step == "fit" and not (config.is_file() and config.stat().st_mtime >= self.step_started)


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
    split = settings["data.split"]
    number = {"study": STUDY_FOLDS, "kfold": settings["data.n_folds"], "official": 1}[split]
    invalid = [fold for fold in folds or [] if not 0 <= fold < number]
    if invalid:
        raise InputError(f"The split {split} has the folds 0 to {number - 1}; found --folds {invalid}.")
    jobs = []
    for index in folds or range(number):
        fold = experiment.fold(index)
        job = Job([*argv, f"--data.fold={index}"], fold, max(settings["trainer.max_epochs"] or 0, 0))
        rows, last = fold.test_metrics, fold.resumable_checkpoint()
        # Runs of earlier versions have neither a lock nor a marker.
        is_unfinished = (fold.path / LOCK_FILE).is_file() and not fold.finished.is_file()
        if not overwrite:
            check_settings(fold, settings)
        if overwrite or last is None:
            job.steps = [["fit", "--overwrite=true"], ["test", "--ckpt_path=best"]]
        # Without the marker, the training was interrupted.
        elif is_unfinished or not rows.is_file() or rows.stat().st_mtime < last.stat().st_mtime:
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


def run_jobs(jobs: list[Job], devices: list[str]) -> None:
    """Run jobs, one per device at a time; only one of them at a time prepares data that folds share.

    Args:
        jobs: The jobs.
        devices: Devices, as for :func:`cm_lightning.crossval.command.crossval`.

    Raises:
        InputError: At least one job failed. All other jobs are run nevertheless.
    """
    console = Console()
    waiting, running, failed = list(jobs), dict[int, Running](), list[Job]()
    progress = FoldProgress([job.fold for job in jobs], [job.epochs for job in jobs])
    shown = time.monotonic()
    status = console.status("")  # the last line of a terminal
    # Background processes of shell scripts ignore SIGINT, and their children would inherit that without a handler.
    previous_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status.start()
        while waiting or running:
            for slot, state in list(running.items()):
                code = state.process.poll()
                if code is None:
                    continue
                del running[slot]
                job = state.job
                if code == 0 and job.steps:
                    running[slot] = start(job, devices[slot], state.job_started, len(devices))
                elif code == 0:
                    console.print(f"{job.fold.name}: finished after {(time.time() - state.job_started) / 60:.1f} min")
                else:
                    failed.append(job)
                    console.print(f"{job.fold.name}: failed, see {job.fold.log}")
            free = [slot for slot in range(len(devices)) if slot not in running]
            if waiting and free and not any(state.may_prepare_data for state in running.values()):
                job = waiting.pop(0)
                verb = "resumes" if "--ckpt_path=auto" in job.steps[0] else "starts"
                console.print(f"{job.fold.name}: {verb} on {devices[free[0]]}")
                running[free[0]] = start(job, devices[free[0]], time.time(), len(devices))
            if time.monotonic() - shown > (1 if console.is_terminal else INTERVAL):
                shown = time.monotonic()
                finished = len(jobs) - len(waiting) - len(running) - len(failed)
                text = progress.text([state.job.fold for state in running.values()], finished)
                if console.is_terminal:
                    status.update(text)
                else:
                    print(text, flush=True)
            time.sleep(0.2)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(CONTINUATION) from None
    except Terminated as error:
        raise Terminated(error.number, CONTINUATION) from None
    finally:
        status.stop()
        # Folds run in separate sessions, so that signals have to be passed on to them.
        for state in running.values():
            state.process.terminate()
        for state in running.values():
            state.process.wait()
        signal.signal(signal.SIGINT, previous_handler)
    if failed:
        reasons = "\n".join(f"{job.fold.log}: {last_line(job.fold.log)}" for job in failed)
        raise InputError(f"{len(failed)} of {len(jobs)} folds failed:\n{reasons}")


def start(job: Job, device: str, job_started: float, parallel_jobs: int) -> Running:
    """Start the next step of a job.

    Args:
        job: The job; the step is removed from its steps.
        device: Device of the job.
        job_started: Start of the job, in seconds since 1970.
        parallel_jobs: Number of jobs that run at the same time and share the cores of the CPU.

    Returns:
        The running job.
    """
    subcommand, *step_arguments = job.steps.pop(0)
    environment = dict(os.environ)
    if device == "cpu":
        device_arguments = ["--trainer.accelerator=cpu"]
        # Processes that each use all cores slow one another down severalfold.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // parallel_jobs)))
    else:
        environment["CUDA_VISIBLE_DEVICES"] = device
        # Tests use one process: with several, the sampler repeats cases so that all get the same number.
        number = len(device.split(",")) if subcommand == "fit" else 1
        device_arguments = ["--trainer.accelerator=gpu", f"--trainer.devices={number}"]
    job.fold.log.parent.mkdir(parents=True, exist_ok=True)
    with job.fold.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cm_lightning", subcommand, *job.argv, *device_arguments, *step_arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches only the parent process, which passes it on once.
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
    return Running(job, process, subcommand, time.time(), job_started)


def last_line(path: Path) -> str:
    """Return the last non-blank line of a log file; "(empty)" if there is none."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "(empty)"
