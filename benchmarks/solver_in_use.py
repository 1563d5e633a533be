"""Time of confidence maps in typical uses, on this machine.

    python benchmarks/solver_in_use.py

The benchmark measures the first call in a process, the preparation of a new frame shape, a volume of 200 frames, maps
on the fly compared with a training step of the 3D U-Net, and the error on large frames whose exact map is known in
closed form. It writes a Markdown table. With a GPU, it also runs there, including the native maps of a muscle volume
(1443 frames of 564 x 632).
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confidence.cpu.plan import make_layout
from cm_lightning.data.phantom import Phantom
from cm_lightning.models import create_network

FIRST_CALL = """
import time, numpy as np
from cm_lightning.confidence import ConfidenceMapSolver
frame = np.random.default_rng(0).random((64, 64))
start = time.perf_counter()
ConfidenceMapSolver()(frame)
print(time.perf_counter() - start)
"""


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", required=True, help="description of the machine for the table")
    parser.add_argument("--largest", type=int, default=4096, help="side of the largest frame of constant intensity")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    rows: list[tuple[str, str]] = []

    started = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=True).stdout
    rows.append(("first call in a process, with cached compiled code", f"{float(started):.2f} s"))
    make_layout(64, 64)
    seconds = median(lambda: make_layout.__wrapped__(512, 476), 5)
    rows.append(("preparation of a new shape, 512 x 476", f"{1000 * seconds:.0f} ms"))

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        volume = phantom_frames(400, 270, 200).to(device)
        seconds = median(partial(solve, volume), 3)
        rows.append((f"volume of 200 frames of 400 x 270, {device}", f"{seconds:.2f} s"))
        small = phantom_frames(96, 96, 96).to(device)
        maps, step = interleaved_medians([partial(solve, small), training_step(device)], 7)
        measured = f"{1000 * maps:.0f} ms, {maps / step:.0%} of a training step of {1000 * step:.0f} ms"
        rows.append((f"maps of 96 frames of 96 x 96, {device}", measured))
        if device == "cuda":
            muscle = phantom_frames(564, 632, 8).to(device).repeat(181, 1, 1)[:1443]
            rows.append(("native maps of a muscle volume, cuda", f"{median(partial(solve, muscle), 3):.2f} s"))

    side = 512
    while side <= arguments.largest:
        start = time.perf_counter()
        maps = ConfidenceMapSolver()(np.ones((side, side)))
        seconds = time.perf_counter() - start
        error = np.abs(maps - np.linspace(1, 0, side)[:, None]).max()
        rows.append(
            (
                f"frame of constant intensity, {side} x {side}, cpu: error against the closed form",
                f"{error:.1e}, {seconds:.1f} s",
            )
        )
        side *= 2

    lines = [
        f"Machine: {arguments.machine}. Medians. Command: `python benchmarks/solver_in_use.py`.",
        "",
        "| use | measured |",
        "| --- | --- |",
        *(f"| {use} | {measured} |" for use, measured in rows),
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "solver_in_use.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def solve(frames: torch.Tensor) -> None:
    """Compute maps and wait until they are complete."""
    ConfidenceMapSolver()(frames)
    if frames.is_cuda:
        torch.cuda.synchronize()


def phantom_frames(depth: int, lateral: int, count: int) -> torch.Tensor:
    """Simulate eight frames and repeat them, ``(count, depth, lateral)``."""
    simulated = Phantom(size=(depth, lateral, 8), spacing=(50 / depth, 40 / lateral, 4.0)).simulate(0).image
    frames = torch.from_numpy(np.moveaxis(simulated, 2, 0).astype(np.float32))
    return frames.repeat(-(-count // 8), 1, 1)[:count].contiguous()


def training_step(device: str) -> Callable[[], None]:
    """Return a training step of the 3D U-Net on one volume of 96 x 96 x 96 with image and map."""
    network = create_network("UNet", spatial_dims=3, in_channels=2, out_channels=4).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    image = torch.rand(1, 2, 96, 96, 96, device=device)
    label = torch.randint(4, (1, 96, 96, 96), device=device)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def median(function: Callable[[], object], rounds: int) -> float:
    """Return the median time of a function in seconds, after a warm-up."""
    return interleaved_medians([function], rounds)[0]


def interleaved_medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median times of several functions that take turns, in seconds, after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for round_ in range(rounds + 1):
        for function, seconds in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_ > 0:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


if __name__ == "__main__":
    main()
