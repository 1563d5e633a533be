"""Check and measure the solver on a GPU, in less than eight minutes, without a network.

    python benchmarks/gpu.py                         # all steps
    python benchmarks/gpu.py --steps timings profile # some steps
    python benchmarks/gpu.py --emulated              # tries out this script on a machine without a GPU

Every step runs in a process of its own with a time limit, so that an error, a crash or a step that hangs is noted, and
the next step runs. The table (gpu.md) and the same facts as JSON (gpu.json) are written after every step. The exit
status is 1 if anything failed. The package does not have to be installed. Only the step `training` needs MONAI, whose
wheels `python benchmarks/gpu_wheels.py` collects for a machine without a network.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from gpu_facts import Fact, last_lines, read_facts, write_results

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("gpu_steps.py")
# Steps in their order, with their time limits in seconds.
STEPS = {
    "versions": 45,
    "compile": 120,
    "tests": 150,
    "timings": 130,
    "profile": 60,
    "checks": 60,
    "sanitizer": 110,
    "training": 60,
    "ncu": 75,
}
# These need programs that only run with a GPU.
GPU_TOOLS = ("sanitizer", "ncu")
# The tests compile the solver for the CPU, which takes longest. This is done while other steps run.
NEEDS_CPU_SOLVER = ("tests", "checks")
LONGEST_PREPARATION = 100.0
# A step is not started if less time is left, in seconds.
SHORTEST_STEP = 10.0


def main() -> None:
    """Run the steps, write the results after each, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--emulated", action="store_true", help="run the kernels on the host, on tiny frames")
    parser.add_argument("--seconds", type=float, default=460.0, help="time limit of all steps together")
    parser.add_argument("--machine", help="description of the machine for the table; the name of the GPU by default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if not arguments.emulated and not gpu_is_present():
        sys.exit("This benchmark needs CuPy and a GPU with CUDA; --emulated runs the kernels on the host instead.")
    machine = arguments.machine or ("the kernels on the host" if arguments.emulated else gpu_name())
    chosen = [] if arguments.steps == list(STEPS) else ["--steps", *arguments.steps]
    emulated = ["--emulated"] if arguments.emulated else []
    command = " ".join(["python", "benchmarks/gpu.py", *emulated, *chosen])

    start = time.perf_counter()
    facts: list[Fact] = []
    text = ""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder), arguments.emulated, start + arguments.seconds)
        try:
            for step in [step for step in STEPS if step in arguments.steps]:
                print(f"[{time.perf_counter() - start:5.0f} s] {step}", flush=True)
                facts += runner.run(step)
                text = write_results(facts, arguments.output, machine, command)
        finally:
            runner.close()
    print(f"[{time.perf_counter() - start:5.0f} s] The results are in {arguments.output}.\n\n{text}", flush=True)
    sys.exit(any(fact.failed for fact in facts))


def gpu_is_present() -> bool:
    """Return whether CuPy, PyTorch with CUDA and a GPU are available."""
    if not find_spec("cupy"):
        return False
    import cupy
    import torch

    return bool(cupy.cuda.is_available()) and torch.cuda.is_available()


def gpu_name() -> str:
    """Return the name of the GPU."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


class Runner:
    """Runs steps in processes of their own.

    Args:
        folder: Temporary folder, also for the cache of CuPy's kernels, which is empty at first.
        emulated: Whether to run the kernels on the host.
        deadline: Time at which the last step must have ended.
    """

    def __init__(self, folder: Path, emulated: bool, deadline: float) -> None:
        self._folder = folder
        self._emulated = emulated
        self._deadline = deadline
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "CUPY_CACHE_DIR": str(folder / "kernels"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        self._preparation = None if emulated else self._start("prepare", 0.0, subprocess.DEVNULL)

    def run(self, step: str) -> list[Fact]:
        """Run a step and return its facts and failures."""
        prepared: list[Fact] = []
        if self._emulated and step in GPU_TOOLS:
            return [Fact(step, "not measured", "needs a GPU")]
        if step in NEEDS_CPU_SOLVER and self._preparation is not None:
            with suppress(subprocess.TimeoutExpired):
                self._preparation.wait(max(0.0, min(LONGEST_PREPARATION, self._deadline - time.perf_counter() - 60.0)))
            end_group(self._preparation)
            self._preparation = None
            prepared = read_facts(self._facts_file("prepare"))
        limit = min(STEPS[step], self._deadline - time.perf_counter())
        if limit < SHORTEST_STEP:
            return [*prepared, Fact(step, "not run", "no time was left for this step", failed=True)]
        begin = time.perf_counter()
        errors = self._folder / f"{step}.log"
        with errors.open("w") as log:
            process = self._start(step, limit, log.fileno())
            message = None
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                message = f"ended after the time limit of {limit:.0f} s\n"
            end_group(process)
        text = last_lines(errors.read_text(errors="replace"), 8)
        facts = read_facts(self._facts_file(step))
        if message is None and status != 0:
            message = f"ended with exit status {status}\n"
        if message is not None:
            facts.append(Fact(step, "the step", message + text[-600:], failed=True))
        return [*prepared, *facts, Fact(step, "duration of the step", f"{time.perf_counter() - begin:.0f} s")]

    def close(self) -> None:
        """End the process that compiles the solver for the CPU, if it still runs."""
        if self._preparation is not None:
            end_group(self._preparation)

    def _facts_file(self, step: str) -> Path:
        return self._folder / f"{step}.jsonl"

    def _start(self, step: str, limit: float, errors: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(WORKER), step, str(self._facts_file(step)), f"--seconds={limit:.0f}"]
        return subprocess.Popen(
            [*command, *(["--emulated"] if self._emulated else [])],
            cwd=ROOT,
            env=self._environment,
            stderr=errors,
            start_new_session=True,  # so that its subprocesses can be ended with it
        )


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all its subprocesses."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
