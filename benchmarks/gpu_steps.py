"""Steps of the GPU benchmark; ``benchmarks/gpu.py`` runs each of them in a process of its own.

    python benchmarks/gpu_steps.py STEP FACTS [--seconds LIMIT] [--emulated]

All steps call the solver as users do, except that ``--emulated`` runs the kernels on the host with the device of the
tests.
"""

import argparse
import contextlib
import cProfile
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_card import Card, EmulatedCard, Size, describe, measure, release_memory
from gpu_facts import Recorder, last_lines
from gpu_frames import masks_for, speckle
from gpu_tools import Profile, is_own, read_metrics, read_sanitizer, read_tests, read_trace

from cm_lightning.confidence import ConfidenceMapSolver

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / ".wheels"
PARAMETERS = [(0.5, 100.0), (0.2, 400.0), (0.2, 100.0), (0.5, 400.0)]
MASKS = ["band", "moving band", "fan", "moving fan"]


# Kernels that do nothing, to measure launches.
TWO_KERNELS = r"""
extern "C" __global__ void few(double *a, long long n) {}
extern "C" __global__ void many(double *a, double *b, double *c, double *d, double *e, double *f, double *g, double *h,
                                double *i, double *j, long long k, long long l, long long m, long long n, long long o,
                                long long p, long long q, long long r, double s, double t) {}
"""


@dataclass(frozen=True)
class Task:
    """What a step needs.

    Args:
        card: The GPU.
        record: Where facts are recorded.
        emulated: Whether the kernels run on the host.
        seconds: Time limit of the step.
    """

    card: Card
    record: Recorder
    emulated: bool
    seconds: float


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*STEPS, *WATCHED])
    parser.add_argument("facts", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--emulated", action="store_true")
    arguments = parser.parse_args()
    record = Recorder(arguments.facts, arguments.step)
    card = EmulatedCard() if arguments.emulated else Card()
    task = Task(card, record, arguments.emulated, arguments.seconds)
    if arguments.step in WATCHED:  # whoever watches notices a failure by the exit status
        WATCHED[arguments.step](task)
        return
    try:
        STEPS[arguments.step](task)
    except Exception:
        record.fail("the step", last_lines(traceback.format_exc(), 6))


def versions(task: Task) -> None:
    """Record versions, and the speed of a copy as a yardstick."""
    packages = ["torch", "cupy-cuda13x", "cupy-cuda12x", "cupy", "numpy", "numba", "scipy"]
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    task.record.add("versions", ", ".join(found))
    megabytes, place = 16, "cpu"
    if not task.emulated:
        import cupy

        megabytes, place = 1024, "cuda"
        runtime, driver = cupy.cuda.runtime.runtimeGetVersion(), cupy.cuda.runtime.driverGetVersion()
        task.record.add("CUDA", f"runtime {runtime} in CuPy, {torch.version.cuda} in torch, driver {driver}")
        card = torch.cuda.get_device_properties(0)
        task.record.add(
            "card", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors"
        )
        if shutil.which("nvidia-smi"):
            fields = "driver_version,clocks.max.sm,clocks.max.mem,power.limit,mig.mode.current"
            command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
            output = subprocess.run(command, capture_output=True, text=True, timeout=15).stdout
            task.record.add("driver, clocks, power limit, MIG", last_lines(output, 1))
    source = torch.ones(megabytes * 2**18, device=place)
    target = torch.empty_like(source)
    timing = measure(task.card, lambda: target.copy_(source))
    bandwidth = 2 * source.nbytes / timing.events / 1e9
    task.record.add("copy, bytes read and written", f"{bandwidth:.2f} TB/s")


def prepare(task: Task) -> None:
    """Compile the solver for the CPU, with which tests compare."""
    start = time.perf_counter()
    frames = np.random.default_rng(0).random((2, 40, 33))
    for method in ("cg", "direct"):
        for dtype in (np.float64, np.float32):
            ConfidenceMapSolver(method=method, backend="cpu").solve(frames.astype(dtype), certify=True)
    tensor = torch.from_numpy(frames).requires_grad_()
    ConfidenceMapSolver(normalise="fixed", backend="cpu")(tensor).sum().backward()
    task.record.add("the solver for the CPU by numba, meanwhile", f"{time.perf_counter() - start:.0f} s")


def compile_kernels(task: Task) -> None:
    """Measure the first solves of a process without and with a cache of compiled kernels."""
    compilations: list[tuple[bool, float]] = []
    frames = task.card.frames(task.card.sizes.few)
    if isinstance(task.card, EmulatedCard):
        start = time.perf_counter()
        _ = task.card.device  # compiles
        task.record.add("both precisions, by the host's compiler", f"{time.perf_counter() - start:.1f} s")
    for method in ("cg", "direct"):
        seconds = []
        with contextlib.nullcontext() if task.emulated else watch_compiler(compilations):
            for _ in range(3):
                start = time.perf_counter()
                task.card.solve(ConfidenceMapSolver(method=method), frames)
                task.card.synchronize()
                seconds.append(time.perf_counter() - start)
        value = f"{seconds[0]:.2f} s, then {1000 * seconds[1]:.0f} and {1000 * seconds[2]:.0f} ms"
        if compilations:
            own = [duration for mine, duration in compilations if mine]
            others = [duration for mine, duration in compilations if not mine]
            value += f"; own kernels {sum(own):.2f} s, {len(others)} others {sum(others):.2f} s"
            compilations.clear()
        task.record.add(f"first {method} solve, no cache of kernels", value)
    if not task.emulated:
        what = "first cg solve of a process, with a cache of kernels"
        command = [sys.executable, __file__, "solve_few", os.devnull]
        output = subprocess.run(command, capture_output=True, text=True, timeout=task.seconds)
        if output.returncode == 0:
            task.record.add(what, last_lines(output.stdout, 1))
        else:
            task.record.fail(what, last_lines(output.stderr, 6))


@contextlib.contextmanager
def watch_compiler(compilations: list[tuple[bool, float]]) -> Iterator[None]:
    """Note for each compilation by CuPy whether it is of this package, and how long it took in seconds."""
    from cupy.cuda import compiler

    program: Any = getattr(compiler, "_NVRTCProgram", None)  # not a part of the public interface
    if program is None:
        yield
        return
    original = program.compile

    def compile_program(self: Any, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(self, *arguments, **options)
        finally:
            names = re.findall(r"__global__ void\s+(\w+)\s*\(", str(self.src))
            compilations.append((any(is_own(name) for name in names), time.perf_counter() - start))

    program.compile = compile_program
    try:
        yield
    finally:
        program.compile = original


def run_tests(task: Task) -> None:
    """Run the tests that are marked with gpu."""
    arguments = ["-m", "gpu", "tests/confidence/cuda", "-v", "--tb=short", "-rf", "-p", "no:cacheprovider"]
    options = ["-o", "addopts=--strict-markers", "-o", "faulthandler_timeout=60"]
    with tempfile.TemporaryFile("w+") as log:
        status: object
        try:
            status = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments, *options],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=task.seconds - 8,
            ).returncode
        except subprocess.TimeoutExpired:
            status = "none (time limit)"
        log.seek(0)
        output = log.read()
    counts, failures = read_tests(output)
    results = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    task.record.add("pytest -m gpu", ", ".join(f"{counts[result]} {result.lower()}" for result in results))
    for test, message in failures.items():
        task.record.fail(test, message)
    if status not in (0, 1):
        task.record.fail(f"pytest ended with exit status {status}", last_lines(output, 8))


def timings(task: Task) -> None:
    """Measure solves of different sizes and inputs, and their memory."""
    card, sizes = task.card, task.card.sizes
    solver = ConfidenceMapSolver()
    for size in (sizes.volume, sizes.frame, sizes.few, sizes.many):
        frames = card.frames(size)
        for name in ("no mask", *MASKS):
            time_solve(task, solver, size, frames, name)
    time_solve(task, replace(solver, method="direct"), sizes.few, card.frames(sizes.few), "no mask")
    if not task.emulated:
        memory(task)
        time_solve(task, solver, sizes.volume, card.frames(sizes.volume, "NumPy"), "no mask", "NumPy")
        time_solve(task, solver, sizes.volume, card.frames(sizes.volume, "NumPy"), "moving band", "NumPy")
        time_solve(task, solver, sizes.many, card.frames(sizes.many, "NumPy"), "no mask", "NumPy")
        time_solve(task, solver, sizes.many, card.frames(sizes.many, "CuPy"), "no mask", "CuPy")
        time_solve(task, solver, sizes.many, card.frames(sizes.many, "NumPy"), "band", "NumPy")
        release_memory()
    frames = card.frames(sizes.largest)
    for name in ("no mask", *MASKS):
        time_solve(task, solver, sizes.largest, frames, name)


def time_solve(
    task: Task, solver: ConfidenceMapSolver, size: Size, frames: Any, masks: str, kind: str | None = None
) -> None:
    """Measure one kind of call."""
    kind = kind or task.card.kind
    with task.record.attempt(f"{describe(size)}, {kind}, {masks}"):
        given = task.card.masks(masks, size, kind)
        timing = measure(task.card, lambda: task.card.solve(solver, frames, **given))
        method = ", direct" if solver.method == "direct" else ""
        task.record.add(f"{describe(size)}, {kind}, {masks}{method}", timing.describe(size[0]))


def memory(task: Task) -> None:
    """Compare the peak memory of a solve with what the package expects."""
    from cm_lightning.confidence.cuda import bytes_per_frame

    number, *shape = task.card.sizes.few
    frames = task.card.frames(task.card.sizes.few)
    for method, precision in (("cg", np.float32), ("direct", np.float64)):
        with task.record.attempt(f"memory, {method}"):
            release_memory()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            maps, _ = task.card.solve(ConfidenceMapSolver(method=method), frames)
            peak = torch.cuda.max_memory_allocated() - before - maps.nbytes
            expected = bytes_per_frame((shape[0], shape[1]), precision)
            task.record.add(
                f"{describe(task.card.sizes.few)}, {method}, peak memory per frame (expected)",
                f"{peak / number / 1e6:.1f} ({expected / 1e6:.1f}) MB",
            )


def profile(task: Task) -> None:
    """Record which kernels take the time of a solve, and which functions that of the processor."""
    if not task.emulated:
        with task.record.attempt("single operations"):
            single_operations(task)
    for size in (task.card.sizes.many, task.card.sizes.volume):
        frames = task.card.frames(size)
        name = describe(size)
        solve = partial(task.card.solve, ConfidenceMapSolver(), frames)
        if isinstance(task.card, EmulatedCard):
            task.card.device.launches.clear()
            solve()
            launches = len(task.card.device.launches)
            task.record.add(f"{name}: own kernels", f"{launches} launches; their time needs a GPU")
            continue
        with task.record.attempt(name):
            wall = measure(task.card, solve).wall
            found = profile_solves(task.card, solve, 5)
            share = found.busy_milliseconds / wall
            task.record.add(
                f"{name}: GPU busy per solve",
                f"{found.busy_milliseconds:.2f} of {wall:.2f} ms ({share:.0%}); {found.launches:.0f} kernels, "
                f"{found.copies:.0f} copies and fills, {found.waits:.0f} waits",
            )
            parts = ", ".join(f"{part} {value:.2f}" for part, value in found.parts().items())
            task.record.add(f"{name}: parts, ms", parts)
            for kernel in found.kernels[:20]:
                task.record.add(
                    f"{size[1]} x {size[2]}: {kernel.name[:45]}",
                    f"{kernel.calls:.0f} calls, {kernel.milliseconds:.3f} ms",
                )
            for function, calls, milliseconds in host_functions(task.card, solve, 10)[:12]:
                task.record.add(
                    f"{size[1]} x {size[2]}, on the host: {function}", f"{calls:g} calls, {milliseconds:.3f} ms"
                )


def host_functions(card: Card, solve: Callable[[], object], number: int) -> list[tuple[str, float, float]]:
    """Return names, calls and milliseconds per solve of the functions that take most time on the host."""
    solve()
    card.synchronize()
    profiler = cProfile.Profile()
    with profiler:
        for _ in range(number):
            solve()
    entries = sorted(profiler.getstats(), key=lambda entry: -entry.inlinetime)
    return [
        (_function_name(entry.code), entry.callcount / number, 1000.0 * entry.inlinetime / number) for entry in entries
    ]


def _function_name(code: Any) -> str:
    if isinstance(code, str):  # of a built-in function
        return code.strip("<>")[:60]
    return f"{Path(code.co_filename).stem}.{code.co_name}"


def single_operations(task: Task) -> None:
    """Measure how long the host needs for a launch and for other operations of a solve."""
    import cupy

    module = cupy.RawModule(code=TWO_KERNELS)
    few, many = module.get_function("few"), module.get_function("many")
    array, frames = cupy.zeros(1000), torch.zeros(8, 96, 96, device="cuda")
    small = np.zeros((96, 4), np.int32)
    on_card = cupy.asarray(small)
    arguments = (*[array] * 10, *range(8), 1.0, 2.0)
    operations: dict[str, Callable[[], object]] = {
        "launch with 2 arguments": lambda: few((8,), (256,), (array, 5)),
        "launch with 20 arguments": lambda: many((8,), (256,), arguments),
        "element-wise operation": lambda: cupy.abs(array),
        "fill": lambda: array.fill(0),
        "copy of a small array to the GPU": lambda: cupy.asarray(small),
        "copy of a small array to the CPU": lambda: on_card.get(),
        "tensor as array": lambda: cupy.from_dlpack(frames),
        "part of an arena": lambda: cupy.ndarray((8, 4), np.float64, memptr=array.data),
    }
    for name, operation in operations.items():
        for _ in range(20):
            operation()
        task.card.synchronize()
        begin = time.perf_counter()
        for _ in range(300):
            operation()
        microseconds = 1e6 * (time.perf_counter() - begin) / 300
        task.card.synchronize()
        task.record.add(f"on the host: {name}", f"{microseconds:.1f} us")


def profile_solves(card: Card, solve: Callable[[], object], number: int) -> Profile:
    """Run some solves with torch.profiler."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as trace_activity

    solve()
    card.synchronize()
    with trace_activity(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        for _ in range(number):
            solve()
        card.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(file))
        return read_trace(json.loads(file.read_text(encoding="utf-8")), number)


def checks(task: Task) -> None:
    """Compare maps with direct solutions in float64 on the CPU, and measure what stays in the memory."""
    _, depth, lateral = task.card.sizes.frame
    frames = speckle(2, depth, lateral)
    for alpha, beta in PARAMETERS:
        with task.record.attempt(f"alpha {alpha}, beta {beta}"):
            solver = ConfidenceMapSolver(alpha, beta)
            exact = replace(solver, method="direct", backend="cpu")(frames.astype(np.float64))
            maps, info = task.card.solve(solver, frames, certify=True)
            errors = np.abs(maps - exact).max(axis=(1, 2))
            what = f"{depth} x {lateral}, alpha {alpha}, beta {beta}: error (estimate, bound)"
            value = (
                f"{errors.max():.1e} ({info.error_estimate.max():.1e}, {info.error_bound.max():.1e}), "
                f"{info.iterations.max()} steps, {info.fallback.sum()} direct"
            )
            task.record.add(what, value)
            if not (errors <= info.error_bound + 1e-12).all() or errors.max() > solver.tolerance:
                task.record.fail(what, value)
    if not task.emulated:
        kept_memory(task)


def kept_memory(task: Task) -> None:
    """Record what both allocators keep after a call."""
    import cupy

    pool = cupy.get_default_memory_pool()
    for kind in ("tensors", "NumPy", "CuPy"):
        for mode in ("B", "RF"):
            with task.record.attempt(f"memory after a call, {kind}, {mode}"):
                release_memory()
                frames = task.card.frames(task.card.sizes.few, kind)
                torch_before, cupy_before = torch.cuda.memory_allocated(), pool.used_bytes()
                maps, _ = task.card.solve(ConfidenceMapSolver(mode=mode), frames)
                torch.cuda.synchronize()
                torch_used = torch.cuda.memory_allocated() - torch_before - (maps.nbytes if kind == "tensors" else 0)
                cupy_used = pool.used_bytes() - cupy_before - (maps.nbytes if kind == "CuPy" else 0)
                task.record.add(
                    f"{describe(task.card.sizes.few)}, {kind}, {mode}: kept after a call, MB used (reserved)",
                    f"torch {torch_used / 1e6:.1f} ({torch.cuda.memory_reserved() / 1e6:.0f}), "
                    f"CuPy {cupy_used / 1e6:.1f} ({pool.total_bytes() / 1e6:.0f})",
                )
                del frames, maps


def find_tool(name: str) -> str | None:
    """Return the path of a tool of the CUDA toolkit, or None."""
    folders = [os.environ.get("PATH", ""), "/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer"]
    return shutil.which(name, path=os.pathsep.join(folders))


def sanitizer(task: Task) -> None:
    """Run small solves under the tools of compute-sanitizer, all at once."""
    program = find_tool("compute-sanitizer")
    if program is None:
        task.record.add("compute-sanitizer", "not found")
        return
    # Every array has its own memory, so that an access beyond it is noticed.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    solve = [sys.executable, __file__, "solve_small", os.devnull]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        running = {}
        for tool in ("memcheck", "racecheck", "synccheck"):
            with (Path(folder) / tool).open("w") as log:
                options = ["--tool", tool, "--error-exitcode", "9"]
                if tool == "memcheck":  # the libraries try calls that may fail
                    options += ["--report-api-errors", "no"]
                running[tool] = subprocess.Popen([program, *options, *solve], env=environment, stdout=log, stderr=log)
        waiting = dict(running)
        while waiting and time.perf_counter() - start < task.seconds - 8:
            time.sleep(0.2)
            for tool in [tool for tool, process in waiting.items() if process.poll() is not None]:
                output = (Path(folder) / tool).read_text(errors="replace")
                status = waiting.pop(tool).returncode
                seconds = time.perf_counter() - start
                summary, problems = read_sanitizer(output)
                if status == 0 and summary:
                    task.record.add(tool, f"{summary}, {seconds:.0f} s")
                else:
                    task.record.fail(tool, "\n".join([*(problems or [last_lines(output, 5)]), f"exit status {status}"]))
        for tool, process in waiting.items():
            process.kill()
            output = (Path(folder) / tool).read_text(errors="replace")
            summary, problems = read_sanitizer(output)
            task.record.fail(tool, "\n".join(["not finished within the time limit", *problems, last_lines(output, 2)]))


def solve_small(task: Task) -> None:
    """Solve small frames with separate memory for every array; compute-sanitizer watches this step."""
    import cupy

    from cm_lightning.confidence.cuda.arena import Arena

    def take(_: Arena, shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
        return cupy.empty(shape, dtype)

    cupy.cuda.set_allocator(None)
    Arena.take = take  # type: ignore[method-assign]
    for shape in ((2, 40, 33), (2, 70, 70), (1, 330, 310)):  # the last one has large fronts
        frames = task.card.frames(shape, "CuPy")
        for method in ("cg", "direct"):
            for masks in ("no mask", "fan"):
                given = masks_for(masks, *shape)
                task.card.solve(ConfidenceMapSolver(method=method), frames, certify=True, **given)
    cupy.cuda.Device().synchronize()


def solve_few(task: Task) -> None:
    """Time the first solve of a process with a cache of kernels; ncu watches the second one."""
    frames = task.card.frames(task.card.sizes.few)
    start = time.perf_counter()
    task.card.solve(ConfidenceMapSolver(), frames)
    task.card.synchronize()
    print(f"{time.perf_counter() - start:.2f} s", flush=True)
    with torch.cuda.profiler.profile():
        task.card.solve(ConfidenceMapSolver(), frames)
        task.card.synchronize()


def nsight(task: Task) -> None:
    """Run ncu on the five kernels that take the most time."""
    program = find_tool("ncu")
    if program is None:
        task.record.add("ncu", "not found")
        return
    frames = task.card.frames(task.card.sizes.few)
    kernels = profile_solves(task.card, partial(task.card.solve, ConfidenceMapSolver(), frames), 2).kernels
    names = [kernel.name for kernel in kernels if is_own(kernel.name)][:5]
    if not names:
        task.record.fail("ncu", "torch.profiler found no kernels of the package")
        return
    del frames
    release_memory()
    options = ["--set", "basic", "--csv", "--print-units", "base", "--profile-from-start", "off"]
    options += ["--kernel-name", f"regex:^({'|'.join(names)})$", "--launch-count", "300", "--clock-control", "none"]
    command = [program, *options, sys.executable, __file__, "solve_few", os.devnull]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=max(20.0, task.seconds - 20))
    except subprocess.TimeoutExpired:
        task.record.fail("ncu", "not finished within the time limit")
        return
    found = read_metrics(result.stdout)
    for kernel in sorted(found, key=lambda kernel: names.index(kernel.name) if kernel.name in names else len(names)):
        task.record.add(f"{describe(task.card.sizes.few)}: {kernel.name}", kernel.summary())
    if not found:
        if "ERR_NVGPUCTRPERM" in result.stdout + result.stderr:
            task.record.add("ncu", "this user may not read the counters of the GPU (ERR_NVGPUCTRPERM)")
        else:
            task.record.fail("ncu", last_lines(result.stdout + "\n" + result.stderr, 6))


def training(task: Task) -> None:
    """Compare a training step of the 3D U-Net with and without maps on the fly."""
    with tempfile.TemporaryDirectory() as folder:
        if WHEELS.is_dir():
            for wheel in WHEELS.glob("*.whl"):  # a wheel is an archive of what has to be on the path
                shutil.unpack_archive(wheel, folder, "zip")
            sys.path.append(folder)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                from cm_lightning.models import create_network
        except ImportError as error:
            task.record.add("training step", f"not measured: {error}")
            return
        side, place = task.card.sizes.side, "cpu" if task.emulated else "cuda"
        volume = torch.from_numpy(speckle(side, side, side)).to(place)
        masks = task.card.masks("moving band", (side, side, side))
        label = torch.randint(4, (1, side, side, side), device=place)

        def solve() -> torch.Tensor:
            frames = volume.numpy() if task.emulated else volume
            return torch.as_tensor(task.card.solve(ConfidenceMapSolver(), frames, **masks)[0]).to(place)

        def make_step(channels: int) -> Callable[[], None]:
            network = create_network("UNet", spatial_dims=3, in_channels=channels, out_channels=4).to(place)
            optimizer = torch.optim.AdamW(network.parameters())

            def step() -> None:
                image = torch.stack([volume / 255, solve()] if channels == 2 else [volume / 255])[None]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(image), label).backward()
                optimizer.step()

            return step

        without, with_maps = (measure(task.card, make_step(channels)).wall for channels in (1, 2))
        maps = measure(task.card, solve).wall
        task.record.add(
            f"step of the 3D U-Net on {side} x {side} x {side} (with maps; maps alone)",
            f"{without:.1f} ({with_maps:.1f}; {maps:.1f}) ms",
        )


STEPS: dict[str, Callable[[Task], None]] = {
    "versions": versions,
    "prepare": prepare,
    "compile": compile_kernels,
    "tests": run_tests,
    "timings": timings,
    "profile": profile,
    "checks": checks,
    "sanitizer": sanitizer,
    "training": training,
    "ncu": nsight,
}
# What other steps run in a process of its own, under a tool or for the first call of a process.
WATCHED: dict[str, Callable[[Task], None]] = {"solve_small": solve_small, "solve_few": solve_few}


if __name__ == "__main__":
    main()
