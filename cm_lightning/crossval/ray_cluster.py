"""Folds as tasks of a Ray cluster."""

import re
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cm_lightning.crossval.jobs import Job, raise_failures
from cm_lightning.crossval.node import run_fold
from cm_lightning.crossval.progress import INTERVAL, FoldProgress
from cm_lightning.crossval.resources import FoldResources
from cm_lightning.errors import InputError
from cm_lightning.interruption import Terminated
from cm_lightning.writing import write_text

# Number of times that a fold is started again, on any node, when its node fails.
RETRIES = 3
# File by which a node shows that it sees the folder of the driver.
TOKEN = ".crossval_token"
# Address with a port, and seconds in which the machine must answer.
HOST = re.compile(r"(ray://)?(?P<host>[^/]+):(?P<port>\d{1,5})")
ANSWER = 10.0
# Seconds between two looks at the files of the folds.
LOOK = 2.0


def run_on_ray(jobs: Sequence[Job], resources: FoldResources, address: str | None = None) -> None:
    """Run jobs as tasks of a Ray cluster, whose nodes see the folders of this machine.

    A task whose node fails is started again on another node, and continues after the last epoch of its fold.

    Args:
        jobs: The jobs.
        resources: Resources of each job.
        address: Address of the cluster, or "auto" for that of this machine; None starts one on this machine.

    Raises:
        InputError: There is no such cluster, no node has the resources or sees the folders, or a job failed. All other
            jobs are run nevertheless. Ray is not installed.
    """
    if not jobs:
        return
    try:
        import ray
    except ImportError as error:
        raise InputError('--engine ray needs Ray, which is not installed: pip install "cm_lightning[ray]".') from error
    _connect(ray, address)
    try:
        _check_nodes(ray.nodes(), resources)
        _run(ray, jobs, resources)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_continuation()) from None
    except SystemExit as error:
        # An interruption within a call of Ray becomes one of its own.
        number = error.number if isinstance(error, Terminated) else signal.SIGTERM
        raise Terminated(number, _continuation()) from None
    finally:
        ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray itself looks for a missing cluster for minutes.
        if address is not None and (match := HOST.fullmatch(address)):
            socket.create_connection((match["host"], int(match["port"])), ANSWER).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"The Ray cluster at {address!r} (--ray_address) does not answer; expected the address that ray start "
            "printed, or auto on one of its nodes."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which ends the process with status 1


def _check_nodes(nodes: Sequence[dict[str, Any]], resources: FoldResources) -> None:
    """Check that a node has the resources of a fold."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(node.get("GPU", 0) >= resources.gpus and node.get("CPU", 0) >= resources.cpus for node in alive):
        found = "; ".join(f"{node.get('GPU', 0):g} GPUs and {node.get('CPU', 0):g} cores" for node in alive)
        raise InputError(
            f"No node of the Ray cluster has {resources.gpus} GPUs and {resources.cpus} cores; found {found}. Change "
            "--gpus_per_fold (0 for the CPU) or --cpus_per_fold."
        )


def _run(ray: Any, jobs: Sequence[Job], resources: FoldResources) -> None:
    progress = FoldProgress([job.fold for job in jobs], [job.epochs for job in jobs])
    remote = ray.remote(num_gpus=resources.gpus, num_cpus=resources.cpus, max_retries=RETRIES)(run_fold)
    waiting, running, failures = list(jobs), dict[Any, Job](), list[tuple[Job, str]]()
    shown, finished, is_prepared = time.monotonic(), 0, False
    for folder in {job.fold.path.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / TOKEN, "Nodes of Ray look for this file.\n")
    try:
        while waiting or running:
            # The first fold prepares the data that all folds share.
            is_prepared = is_prepared or any(job.fold.config.is_file() for job in running.values()) or finished > 0
            limit = 1 if not is_prepared else (resources.parallel or len(jobs))
            while waiting and len(running) < limit:
                job = waiting.pop(0)
                print(f"{job.fold.name}: {job.verb} as soon as a node is free", flush=True)
                token = job.fold.path.parent.absolute() / TOKEN
                reference = remote.remote(
                    job.command(),
                    str(Path.cwd()),
                    str(job.fold.path.absolute()),
                    str(token),
                    resources.gpus,
                    resources.cpus,
                )
                running[reference] = job
            time.sleep(LOOK)
            done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            for reference in done:
                job = running.pop(reference)
                node, code, reason = _result(ray, reference)
                finished += 1
                print(f"{job.fold.name}: {'finished' if code == 0 else f'failed: {reason}'} ({node})", flush=True)
                if code:
                    failures.append((job, reason))
            if time.monotonic() - shown > INTERVAL:
                shown = time.monotonic()
                print(progress.text([job.fold for job in running.values()], finished), flush=True)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        for folder in {job.fold.path.parent for job in jobs}:
            (folder / TOKEN).unlink(missing_ok=True)
    raise_failures(failures, len(jobs))


def _result(ray: Any, reference: Any) -> tuple[str, int, str]:
    try:
        node, code, reason = ray.get(reference)
    except ray.exceptions.OutOfMemoryError:
        return "a node", 1, "killed because the node was short of memory; expected fewer folds at a time (--parallel)"
    except ray.exceptions.RayTaskError as error:
        return "a node", 1, str(error.cause)
    except ray.exceptions.RayError as error:
        return "a node", 1, f"lost {RETRIES + 1} times ({type(error).__name__})"
    return node, code, reason


def _continuation() -> str:
    return (
        "crossval was interrupted, and its tasks were cancelled. Finished folds and the last epoch of the others are "
        "kept; the same command continues."
    )
