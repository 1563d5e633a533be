"""Speed and accuracy of solvers for confidence maps.

    python benchmarks/solver.py                      # all sizes and parameters, on the CPU and a GPU if present
    python benchmarks/solver.py --frames FOLDER      # on your own images instead of phantoms
    python benchmarks/solver.py --quick              # a short run of about a minute

All methods solve the same frames in one process and take turns, after a warm-up. Times are medians over the rounds, and
ratios are ratios of medians. The error is the largest difference from the exact map (subtraction-free elimination in
float64), not a residual. Other solvers are compared if they are installed: PARDISO needs `pip install pypardiso`, the
conjugate gradients of MONAI need `pip install pyamg`. The results are written as a CSV file, a Markdown table and a
plot.
"""

import argparse
import csv
import itertools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import sparse
from scipy.sparse import linalg

from cm_lightning.confidence import ConfidenceMapSolver, cpu
from cm_lightning.confidence.cpu.equations import assemble
from cm_lightning.confidence.cpu.threads import ONE_THREAD
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.problem import Problem
from cm_lightning.confidence.weights import EDGE_ENDS
from cm_lightning.data.phantom import Phantom

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Frames = NDArray[np.float32]
Solve = Callable[[Frames], tuple[Any, dict[str, Any]]]
CONSOLE = Console(width=200)
# A method that takes longer than this, in seconds per frame, is timed only once.
SLOW = 10.0


@dataclass(frozen=True)
class Row:
    """Result of one method for one size and one set of parameters."""

    method: str
    device: str
    tolerance: float | None
    frames: str
    depth: int
    lateral: int
    batch: int
    alpha: float
    beta: float
    gamma: float
    milliseconds_per_frame: float
    frames_per_second: float
    times_monai: float | None
    iterations: float | None
    fallback_share: float | None
    largest_error: float
    float32_frames_of_memory: float | None


def main() -> None:
    """Run the benchmark and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=["96x96", "400x270", "500x420", "512x476"], help="depth x lateral"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="frames per call (GPU: also 64)")
    parser.add_argument("--parameters", nargs="+", default=["0.5:100", "0.5:400", "0.2:100", "2:90"], help="alpha:beta")
    parser.add_argument("--gamma", type=float, nargs="+", default=[0.05])
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-3, 1e-4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=Path, help="folder of images, of which the first few of each size are used")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="do not measure the memory of other solvers")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--machine", default=machine_name())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.parameters = ["96x96", "200x180"], ["0.5:100"]
        arguments.batches, arguments.rounds = [2], 1

    rows: list[Row] = []
    for (name, stack), text, gamma in itertools.product(
        load(arguments.frames, arguments.sizes, max(arguments.batches)), arguments.parameters, arguments.gamma
    ):
        alpha, beta = (float(value) for value in text.split(":"))
        rows += measure(name, stack, alpha, beta, gamma, arguments)
        write(rows, arguments.output, arguments.machine)
    show(rows, arguments.machine)


def machine_name() -> str:
    """Return the number of cores and the name of the processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.processor()}"


def load(folder: Path | None, sizes: list[str], count: int) -> Iterator[tuple[str, Frames]]:
    """Yield the name and the frames of each size, ``(count, depth, lateral)``."""
    if folder is None:
        for size in sizes:
            depth, lateral = (int(side) for side in size.split("x"))
            phantom = Phantom(size=(depth, lateral, max(count, 2)), spacing=(50 / depth, 40 / lateral, 1.0))
            yield "phantom", np.moveaxis(phantom.simulate(0).image, 2, 0).astype(np.float32)
        return
    by_size: dict[tuple[int, ...], list[Frames]] = {}
    for file in sorted(folder.rglob("*.png")):
        frame = np.asarray(Image.open(file).convert("L"), dtype=np.float32)
        by_size.setdefault(frame.shape, []).append(frame)
    for frames in by_size.values():
        yield folder.name, np.stack([frames[index % len(frames)] for index in range(count)])


def measure(
    name: str, stack: Frames, alpha: float, beta: float, gamma: float, arguments: argparse.Namespace
) -> list[Row]:
    """Solve the frames of one size with all methods and one set of parameters."""
    package_solver = ConfidenceMapSolver(alpha, beta, gamma)
    exact = replace(package_solver, method="direct", backend="cpu")(stack.astype(np.float64))
    replace(package_solver, backend="cpu")(stack[:1])  # compiles the solver if necessary
    jobs: list[tuple[str, str, float | None, int, Solve]] = []
    for batch in arguments.batches:
        jobs += [
            (f"ours, {solver.method}", "CPU", tolerance, batch, solve_with(solver))
            for tolerance in arguments.tolerances
            for solver in [replace(package_solver, tolerance=tolerance, backend="cpu")]
        ]
        jobs.append(
            ("ours, direct", "CPU", None, batch, solve_with(replace(package_solver, method="direct", backend="cpu")))
        )
    if gpu_is_present():
        for batch in {*arguments.batches, 64}:
            for tolerance in arguments.tolerances:
                solver = replace(package_solver, tolerance=tolerance, backend="cuda")
                jobs.append(("ours, cg", "GPU", tolerance, batch, solve_on_gpu(solver)))
    if not arguments.no_peers:
        jobs += [(peer, "CPU", None, 1, solve) for peer, solve in cpu_peers(package_solver)]
        if gpu_is_present():
            jobs += [(peer, "GPU", None, 1, solve) for peer, solve in gpu_peers(package_solver)]

    times: dict[int, list[float]] = {index: [] for index in range(len(jobs))}
    errors = dict.fromkeys(times, 0.0)
    facts: dict[int, dict[str, Any]] = {}
    for round_ in range(arguments.rounds + 1):  # the first round is a warm-up
        for index, (_, _, _, batch, solve) in enumerate(jobs):
            if round_ > 0 and times[index] and times[index][0] > SLOW:
                continue
            indices = [(round_ + shift) % len(stack) for shift in range(batch)]
            frames = stack[indices]
            start = time.perf_counter()
            maps, facts[index] = solve(frames)
            elapsed = facts[index].pop("seconds", time.perf_counter() - start)
            errors[index] = max(errors[index], float(np.abs(maps - exact[indices]).max()))
            if round_ == 1:  # the warm-up counts only for methods that are timed once
                times[index].clear()
            if round_ > 0 or elapsed / batch > SLOW:
                times[index].append(elapsed / batch)
    seconds = {index: statistics.median(values) for index, values in times.items()}
    monai = next((seconds[index] for index, job in enumerate(jobs) if job[0] == "MONAI direct"), None)
    rows = []
    for index, (method, device, tolerance, batch, _) in enumerate(jobs):
        rows.append(
            Row(
                method=method,
                device=device,
                tolerance=tolerance,
                frames=name,
                depth=stack.shape[1],
                lateral=stack.shape[2],
                batch=batch,
                alpha=alpha,
                beta=beta,
                gamma=gamma,
                milliseconds_per_frame=1000 * seconds[index],
                frames_per_second=1 / seconds[index],
                times_monai=monai / seconds[index] if monai else None,
                iterations=facts[index].get("iterations"),
                fallback_share=facts[index].get("fallback_share"),
                largest_error=errors[index],
                float32_frames_of_memory=memory(method, device, package_solver, stack[0], arguments),
            )
        )
        CONSOLE.print(
            f"{method} {device} {stack.shape[1]}x{stack.shape[2]} batch {batch} alpha {alpha} beta {beta}: "
            f"{rows[-1].milliseconds_per_frame:.1f} ms per frame, error {rows[-1].largest_error:.1e}"
        )
    return rows


def solve_with(solver: ConfidenceMapSolver) -> Solve:
    """Solve with this package on the CPU."""

    def solve(frames: Frames) -> tuple[Any, dict[str, Any]]:
        maps, info = solver.solve(frames)
        return maps, {"iterations": info.iterations.mean(), "fallback_share": info.fallback.mean()}

    return solve


def solve_on_gpu(solver: ConfidenceMapSolver) -> Solve:
    """Solve with this package for frames in GPU memory, timed with CUDA events."""
    import cupy

    def solve(frames: Frames) -> tuple[Any, dict[str, Any]]:
        on_device = cupy.asarray(frames)
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record()
        maps, info = solver.solve(on_device)
        end.record()
        end.synchronize()
        seconds = cupy.cuda.get_elapsed_time(begin, end) / 1000
        facts = {"iterations": info.iterations.mean(), "fallback_share": info.fallback.mean(), "seconds": seconds}
        return maps.get(), facts

    return solve


def equations(solver: ConfidenceMapSolver, frame: Frames) -> tuple[RandomWalkGraph, NDArray[np.float64]]:
    """Return the equations of a frame and its known values, from this package."""
    problem = Problem(replace(solver, backend="cpu"), frame[None], None, None, None)
    group = assemble(problem, [0], [(slice(0, frame.shape[0]), slice(0, frame.shape[1]))], 1, ONE_THREAD)
    return group.graph, group.values


def sparse_matrix(graph: RandomWalkGraph) -> tuple[sparse.csc_array, NDArray[np.float64]]:
    """Return the sparse matrix and the right-hand side of the equations."""
    unknown = graph.unknown
    index = np.full(unknown.shape, -1)
    index[unknown] = np.arange(np.count_nonzero(unknown))
    diagonal = graph.slack.copy()
    rows, columns, values = [], [], []
    for kind, (start, end) in EDGE_ENDS.items():
        weight = getattr(graph, kind)
        present = weight > 0
        for near, far in ((start, end), (end, start)):
            diagonal[near] += weight
            rows.append(index[near][present])
            columns.append(index[far][present])
            values.append(-weight[present])
    number = np.arange(np.count_nonzero(unknown))
    matrix = sparse.coo_array(
        (
            np.concatenate([*values, diagonal[unknown]]),
            (np.concatenate([*rows, number]), np.concatenate([*columns, number])),
        )
    ).tocsc()
    return matrix, graph.rhs[unknown]


def cpu_peers(package_solver: ConfidenceMapSolver) -> Iterator[tuple[str, Solve]]:
    """Yield the other solvers: MONAI as a whole, and sparse solvers of which only the solve is timed."""
    from monai.data.ultrasound_confidence_map import UltrasoundConfidenceMap

    def monai(**options: Any) -> Solve:
        solver = UltrasoundConfidenceMap(package_solver.alpha, package_solver.beta, package_solver.gamma, **options)
        return lambda frames: (np.stack([solver(frame) for frame in frames]), {})

    def library(solve_matrix: Callable[[Any, Any], Any]) -> Solve:
        def solve(frames: Frames) -> tuple[Any, dict[str, Any]]:
            graph, values = equations(package_solver, frames[0])
            matrix, right = sparse_matrix(graph)
            start = time.perf_counter()
            values[graph.unknown] = solve_matrix(matrix, right)
            return values[None], {"seconds": time.perf_counter() - start}

        return solve

    def symmetric_lu(matrix: Any, right: Any) -> Any:
        options = {"SymmetricMode": True}
        return linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(right)

    yield "MONAI direct", monai()
    if find_spec("pyamg"):
        yield "MONAI CG", monai(use_cg=True)
    yield "SciPy spsolve", library(linalg.spsolve)
    yield "SciPy splu, symmetric", library(symmetric_lu)
    if find_spec("pypardiso"):
        yield "PARDISO, analysis reused", pardiso(package_solver)


def pardiso(package_solver: ConfidenceMapSolver) -> Solve:
    """MKL PARDISO for symmetric positive definite matrices; the analysis is reused per shape and not timed."""
    from pypardiso import PyPardisoSolver

    solver: Any = PyPardisoSolver(mtype=2)
    analysed: list[tuple[int, ...]] = []

    def solve(frames: Frames) -> tuple[Any, dict[str, Any]]:
        graph, values = equations(package_solver, frames[0])
        matrix, right = sparse_matrix(graph)
        upper = sparse.csr_matrix(sparse.triu(matrix))
        upper.sort_indices()
        if analysed != [upper.shape]:
            analysed[:] = [upper.shape]
            solver.set_phase(11)
            solver._call_pardiso(upper, right)
        start = time.perf_counter()
        solver.set_phase(23)
        values[graph.unknown] = solver._call_pardiso(upper, right).ravel()
        return values[None], {"seconds": time.perf_counter() - start}

    return solve


def gpu_is_present() -> bool:
    """Return whether CuPy and a GPU are available."""
    if not find_spec("cupy"):
        return False
    import cupy

    return bool(cupy.cuda.is_available())


def gpu_peers(package_solver: ConfidenceMapSolver) -> Iterator[tuple[str, Solve]]:
    """Yield the solvers of CuPy: conjugate gradients in float32, one frame at a time, for 200 iterations."""
    import cupy
    from cupyx.scipy import sparse as gpu_sparse
    from cupyx.scipy.sparse import linalg as gpu_linalg

    def iterative(precondition: Callable[[Any], Any]) -> Solve:
        def solve(frames: Frames) -> tuple[Any, dict[str, Any]]:
            graph, values = equations(package_solver, frames[0])
            matrix, right = sparse_matrix(graph)
            on_device = gpu_sparse.csr_matrix(sparse.csr_matrix(matrix).astype(np.float32))
            right = cupy.asarray(right, dtype=np.float32)
            cupy.cuda.Device().synchronize()
            start = time.perf_counter()
            operator = gpu_linalg.LinearOperator(on_device.shape, precondition(on_device), dtype=np.float32)
            solution, _ = gpu_linalg.cg(on_device, right, tol=0.0, maxiter=200, M=operator)
            cupy.cuda.Device().synchronize()
            seconds = time.perf_counter() - start
            values[graph.unknown] = solution.get()
            return values[None], {"seconds": seconds, "iterations": 200.0}

        return solve

    def jacobi(matrix: Any) -> Any:
        inverse = 1 / matrix.diagonal()
        return lambda vector: inverse * vector

    yield "CuPy Jacobi-CG, 200 iterations", iterative(jacobi)
    yield "CuPy ILU-CG, 200 iterations", iterative(lambda matrix: gpu_linalg.spilu(matrix.tocsc()).solve)


def memory(
    method: str, device: str, package_solver: ConfidenceMapSolver, frame: Frames, arguments: argparse.Namespace
) -> float | None:
    """Return the memory per frame, in float32 frames: computed for this package, measured for other solvers."""
    if method.startswith("ours"):
        precision = np.float64 if "direct" in method else np.float32
        if device == "GPU":
            from cm_lightning.confidence import cuda

            return cuda.bytes_per_frame(frame.shape, precision) / frame.nbytes
        return cpu.bytes_per_frame(frame.shape, precision) / frame.nbytes
    if device == "GPU" or arguments.no_memory or frame.size < 50000:
        return None
    key = (method, frame.shape)
    if key not in _MEASURED:
        with get_context("spawn").Pool(1) as pool:
            _MEASURED[key] = pool.apply(_peak_bytes, (method, package_solver, frame)) / frame.nbytes
    return _MEASURED[key]


_MEASURED: dict[tuple[str, tuple[int, ...]], float] = {}


def _peak_bytes(method: str, package_solver: ConfidenceMapSolver, frame: Frames) -> float:
    """Return by how many bytes solving one frame increases the peak memory of this process (Linux only)."""
    solve = dict(cpu_peers(package_solver))[method]
    solve(frame[None, :20, :20])
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")

    def kilobytes(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = kilobytes("VmRSS")
    solve(frame[None])
    return 1024.0 * (kilobytes("VmHWM") - before)


def write(rows: list[Row], folder: Path, machine: str) -> None:
    """Write the CSV file, the table and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "solver.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["machine", *asdict(rows[0])])
        writer.writeheader()
        writer.writerows({"machine": machine, **asdict(row)} for row in rows)
    command = " ".join(["python", "benchmarks/solver.py", *(part for part in sys.argv[1:] if "/" not in part)])
    lines = [
        f"Machine: {machine}. Command: `{command}`. Medians; every method on the same frames in one process.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "| " + " | ".join("---" for _ in HEADINGS) + " |",
        *("| " + " | ".join(cells(row)) + " |" for row in rows),
    ]
    (folder / "solver.md").write_text("\n".join(lines) + "\n")
    figure, axes = plt.subplots(figsize=(8, 5))
    largest = max(row.depth * row.lateral for row in rows)
    methods = sorted({(row.method, row.device) for row in rows})
    for (method, device), marker in zip(methods, itertools.cycle("os^vD<>ph*")):
        largest_frames = [row for row in rows if row.depth * row.lateral == largest]
        shown = [row for row in largest_frames if (row.method, row.device) == (method, device)]
        axes.loglog(
            [row.milliseconds_per_frame for row in shown],
            [max(row.largest_error, 1e-16) for row in shown],
            marker,
            label=f"{method} ({device})",
        )
    axes.axhline(1e-3, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="ms per frame", ylabel="largest error of the map", title=f"Largest frames, {machine}")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "solver.png", dpi=120)
    plt.close(figure)


HEADINGS = [
    "method",
    "tolerance",
    "size",
    "batch",
    "alpha, beta, gamma",
    "ms per frame",
    "frames/s",
    "x MONAI",
    "iterations",
    "fallback",
    "largest error",
    "memory (float32 frames)",
]


def cells(row: Row) -> list[str]:
    """Format the cells of a table row."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        f"{row.method} ({row.device})",
        number(row.tolerance, "g"),
        f"{row.depth} x {row.lateral}",
        str(row.batch),
        f"{row.alpha:g}, {row.beta:g}, {row.gamma:g}",
        f"{row.milliseconds_per_frame:.1f}",
        f"{row.frames_per_second:.1f}",
        number(row.times_monai, ".1f"),
        number(row.iterations, ".1f"),
        number(row.fallback_share, ".0%"),
        f"{row.largest_error:.1e}",
        number(row.float32_frames_of_memory, ".0f"),
    ]


def show(rows: list[Row], machine: str) -> None:
    """Print the table."""
    table = Table(*HEADINGS, title=machine)
    for row in rows:
        table.add_row(*cells(row))
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
