"""What a node does for a fold.

Workers of Ray import this module, and would take half a gigabyte with PyTorch.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from cm_lightning.errors import InputError
from cm_lightning.interruption import end_with_parent
from cm_lightning.runs.lock import RunLock

# Seconds until the lock of a fold whose process was killed is free.
WAIT_FOR_LOCK = 120.0


def run_fold(command: list[str], cwd: str, fold: str, token: str, gpus: int, cpus: int) -> tuple[str, int, str]:
    """Run a job on a node.

    Args:
        command: Program and arguments, without the devices.
        cwd: Folder in which it is run.
        fold: Folder of the fold.
        token: File of the driver, which this node must see.
        gpus: Number of GPUs.
        cpus: Number of CPU cores.

    Returns:
        Name of the node, status, and the reason of a failure.
    """
    node = os.uname().nodename
    missing = next((path for path in (token, cwd) if not Path(path).exists()), None)
    if missing is not None:
        return node, 2, f"the node {node} does not see {missing}; expected a file system that all nodes share"
    folder = Path(fold)
    wait_for_lock(folder)
    devices = os.environ["CUDA_VISIBLE_DEVICES"] if gpus else "cpu"
    output = folder.with_name(f"{folder.name}_crossval.log")
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as log:
        code = subprocess.run(
            [*command, "--devices", devices],
            cwd=cwd,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(cpus)},
            preexec_fn=end_with_parent(),
            check=False,
        ).returncode
    return node, code, "" if code == 0 else reason_of_end(code, output)


def wait_for_lock(folder: Path) -> None:
    """Wait for the end of a process of this fold, such as that of a task whose worker was killed."""
    deadline = time.monotonic() + WAIT_FOR_LOCK
    while True:
        try:
            RunLock(folder).release()
            return
        except InputError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def reason_of_end(code: int, log: Path) -> str:
    """Explain why a process ended.

    Args:
        code: Its status, which is negative if a signal ended it.
        log: Its output.

    Returns:
        The last line of the output, or that the process was killed.
    """
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return (
            "killed (signal 9), as the operating system or the scheduler does if memory is short; a smaller "
            "data.batch_size, fewer data.num_workers or fewer folds at a time need less"
        )
    return last_line(log)


def last_line(path: Path) -> str:
    """Return the last non-blank line of a log file; "(empty)" if there is none."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "(empty)"
