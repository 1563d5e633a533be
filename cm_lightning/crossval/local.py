"""Folds as processes of this machine, one per device at a time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
from rich.console import Console

from cm_lightning.crossval.jobs import Job, raise_failures
from cm_lightning.crossval.node import reason_of_end
from cm_lightning.crossval.progress import INTERVAL, FoldProgress
from cm_lightning.errors import InputError
from cm_lightning.interruption import Terminated, end_with_parent

CONTINUATION = (
    "crossval was interrupted. Finished folds and the last epoch of the others are kept; the same command continues."
)


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


def run_jobs(jobs: list[Job], devices: list[str]) -> None:
    """Run jobs, one per device at a time; only one of them at a time prepares data that folds share.

    Args:
        jobs: The jobs.
        devices: Devices, as for :func:`cm_lightning.crossval.command.crossval`.

    Raises:
        InputError: At least one job failed. All other jobs are run nevertheless.
    """
    console = Console()
    waiting, running, failures = list(jobs), dict[int, Running](), list[tuple[Job, str]]()
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
                    failures.append((job, reason_of_end(code, job.fold.log)))
                    console.print(f"{job.fold.name}: failed, see {job.fold.log}: {failures[-1][1]}")
            free = [slot for slot in range(len(devices)) if slot not in running]
            if waiting and free and not any(state.may_prepare_data for state in running.values()):
                job = waiting.pop(0)
                console.print(f"{job.fold.name}: {job.verb} on {devices[free[0]]}")
                running[free[0]] = start(job, devices[free[0]], time.time(), len(devices))
            if time.monotonic() - shown > (1 if console.is_terminal else INTERVAL):
                shown = time.monotonic()
                finished = len(jobs) - len(waiting) - len(running) - len(failures)
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
    raise_failures(failures, len(jobs))


def check_devices(devices: list[str]) -> None:
    """Check that this machine has the devices.

    Args:
        devices: Devices, as for :func:`cm_lightning.crossval.command.crossval`.

    Raises:
        InputError: A GPU is missing.
    """
    number = torch.cuda.device_count()
    missing = [name for device in devices if device != "cpu" for name in device.split(",") if _is_missing(name, number)]
    if missing:
        found = f"the GPUs 0 to {number - 1}" if number else "no GPU"
        raise InputError(
            f"--devices names {', '.join(missing)}, but this machine has {found}; expected cpu or its GPUs."
        )


def _is_missing(name: str, number: int) -> bool:
    """Return whether there is no GPU with an index; other names, such as those of MIG, are left to CUDA."""
    return number == 0 or (name.isdecimal() and int(name) >= number)


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
    arguments = [*job.argv, f"--data.fold={job.index}", *device_arguments, *step_arguments]
    job.fold.log.parent.mkdir(parents=True, exist_ok=True)
    with job.fold.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cm_lightning", subcommand, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches only the parent process, which passes it on once.
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
    return Running(job, process, subcommand, time.time(), job_started)
