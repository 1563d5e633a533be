"""Folds as the tasks of a SLURM job array."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cm_lightning.crossval.jobs import Job
from cm_lightning.crossval.resources import FoldResources
from cm_lightning.errors import InputError
from cm_lightning.writing import write_text

SCRIPT = "crossval_slurm.sh"


def array_script(jobs: Sequence[Job], resources: FoldResources, options: Sequence[str] = ()) -> str:
    """Write the script of a job array with one task per fold.

    A task that is preempted, or whose node fails, is requeued and continues after the last epoch of its fold. Without
    SLURM, ``SLURM_ARRAY_TASK_ID=0 bash SCRIPT`` runs the first task.

    Args:
        jobs: The jobs.
        resources: Resources of each job.
        options: Further options of ``sbatch``, such as ``--partition=gpu``.

    Returns:
        The script, which has to be started in the current folder.
    """
    limit = "" if resources.parallel is None else f"%{resources.parallel}"
    devices = '"${CUDA_VISIBLE_DEVICES:?no GPU was assigned to this task}"' if resources.gpus else "cpu"
    directives = [
        f"--job-name={jobs[0].fold.experiment.path.name}",
        f"--array=0-{len(jobs) - 1}{limit}",
        "--output=slurm_%x_%A_%a.log",
        f"--chdir={Path.cwd()}",
        f"--cpus-per-task={resources.cpus}",
        *([f"--gpus={resources.gpus}"] if resources.gpus else []),
        "--requeue",
        "--open-mode=append",
        *options,
    ]
    tasks = [f"  {number}) exec {shlex.join(job.command())} --devices {devices} ;;" for number, job in enumerate(jobs)]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {directive}" for directive in directives),
            "set -euo pipefail",
            f"cd {shlex.quote(str(Path.cwd()))}",
            "# Lightning starts the processes of several GPUs itself.",
            "unset SLURM_NTASKS SLURM_NTASKS_PER_NODE",
            f"export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-{resources.cpus}}}",
            'case "${SLURM_ARRAY_TASK_ID:?submit this script with sbatch, or set the number of a task}" in',
            *tasks,
            f'  *) echo "There is no task $SLURM_ARRAY_TASK_ID; expected 0 to {len(jobs) - 1}." >&2; exit 2 ;;',
            "esac",
            "",
        ]
    )


def submit(script: str, folder: Path, experiments: Sequence[Sequence[str]]) -> None:
    """Submit the job array, and a job that pools the results afterwards.

    Args:
        script: The script of the job array.
        folder: Folder into which it is written, which all nodes see.
        experiments: Arguments of the experiments whose folds are pooled afterwards.

    Raises:
        InputError: There is no ``sbatch``, or it refuses a job.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "--engine slurm needs the command sbatch, which this machine does not have; expected a login node of a "
            "cluster. --print_slurm true prints the script without it."
        )
    path = folder / SCRIPT
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, script)
    array = _sbatch([str(path)])
    print(f"Submitted {path} as the job array {array}.")
    if experiments:
        program = [sys.executable, "-m", "cm_lightning", "crossval"]
        commands = [shlex.join([*program, *argv, "--devices", "cpu"]) for argv in experiments]
        wrapped = f"--wrap={' && '.join(commands)}"
        name, output = f"--job-name={folder.name}_pool", "--output=slurm_%x_%j.log"
        pool = _sbatch([f"--dependency=afterok:{array}", name, output, f"--chdir={Path.cwd()}", wrapped])
        print(f"The job {pool} pools the results when all folds are finished.")


def _sbatch(arguments: Sequence[str]) -> str:
    """Submit a job, and return its id."""
    result = subprocess.run(["sbatch", "--parsable", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise InputError(f"sbatch refused the job: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip().split(";")[0]
