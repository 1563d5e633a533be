"""The GPU on which the benchmark runs, its emulation on the host, and how calls are timed."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from gpu_frames import masks_for, speckle

from cm_lightning.confidence import ConfidenceMapSolver

Size = tuple[int, int, int]
# Time for the measurement of one call, in seconds. Slower calls are repeated less often.
ALLOWANCE = 3.0


@dataclass(frozen=True)
class Sizes:
    """Numbers, depths and widths of frames.

    Args:
        volume: Frames of a training volume, which is profiled.
        frame: One frame.
        few: Some of these frames, of which the memory is measured.
        many: Many of these frames, which are profiled.
        largest: A part of a volume at its full resolution.
        side: Side of a volume for a training step.
    """

    volume: Size = (96, 96, 96)
    frame: Size = (1, 512, 476)
    few: Size = (8, 512, 476)
    many: Size = (64, 512, 476)
    largest: Size = (340, 564, 632)
    side: int = 96


TINY = Sizes((2, 16, 14), (1, 17, 15), (2, 17, 15), (3, 17, 15), (2, 20, 17), 32)


class Card:
    """A GPU with the frames on it."""

    kind = "tensors"
    sizes = Sizes()
    rounds, warm_ups = 20, 3

    def frames(self, size: Size, kind: str = "tensors") -> Any:
        """Create frames as tensors on the GPU, or as NumPy or CuPy arrays."""
        return self.upload(speckle(*size), kind)

    def masks(self, name: str, size: Size, kind: str = "tensors") -> dict[str, Any]:
        """Create masks as tensors on the GPU, or as NumPy or CuPy arrays."""
        return {key: self.upload(mask, kind) for key, mask in masks_for(name, *size).items()}

    def upload(self, array: Any, kind: str) -> Any:
        """Convert a NumPy array."""
        if kind == "CuPy":
            import cupy

            return cupy.asarray(array)
        return torch.from_numpy(array).cuda() if kind == "tensors" else array

    def solve(self, solver: ConfidenceMapSolver, frames: Any, certify: bool = False, **masks: Any) -> tuple[Any, Any]:
        """Compute maps on the GPU."""
        return replace(solver, backend="cuda").solve(frames, certify=certify, **masks)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()

    def timer(self) -> Callable[[], float]:
        """Start to measure with events of CUDA; the result returns the milliseconds up to its call."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()

        def stop() -> float:
            end.record()
            end.synchronize()
            return begin.elapsed_time(end)

        return stop


class EmulatedCard(Card):
    """The kernels on the host."""

    kind = "NumPy"
    sizes = TINY
    rounds, warm_ups = 1, 1

    @cached_property
    def device(self) -> Any:
        """The device of the tests, for which the kernels are compiled now."""
        from tests.confidence.cuda.host_device import HostDevice

        with tempfile.TemporaryDirectory() as folder:
            return HostDevice(Path(folder))

    def upload(self, array: Any, kind: str) -> Any:
        """Return a NumPy array as it is."""
        return array

    def solve(self, solver: ConfidenceMapSolver, frames: Any, certify: bool = False, **masks: Any) -> tuple[Any, Any]:
        """Compute maps with the kernels on the host."""
        from tests.confidence.cuda.host_device import solve_on_host

        return solve_on_host(self.device, solver, frames, certify=certify, **masks)

    def synchronize(self) -> None:
        """Do nothing, since the host waits for its own work."""

    def timer(self) -> Callable[[], float]:
        """Measure with the clock of the host."""
        begin = time.perf_counter()
        return lambda: 1000 * (time.perf_counter() - begin)


@dataclass(frozen=True)
class Timing:
    """Medians in milliseconds.

    Args:
        wall: Time of the call until the GPU is ready.
        events: The same, measured with events on the GPU.
        rounds: Number of measurements.
    """

    wall: float
    events: float
    rounds: int

    def describe(self, frames: int) -> str:
        """Describe the time for a number of frames."""
        text = f"{self.wall:.2f} ms, events {self.events:.2f}"
        if frames > 1:
            text += f", {self.wall / frames:.3f} per frame"
        return text if self.rounds == Card.rounds else f"{text} (rounds: {self.rounds})"


def measure(card: Card, call: Callable[[], object]) -> Timing:
    """Measure a call repeatedly, after a warm-up."""
    card.synchronize()
    start = time.perf_counter()
    call()
    card.synchronize()
    first = time.perf_counter() - start
    for _ in range(card.warm_ups - 1 if first < ALLOWANCE / 10 else 0):
        call()
    card.synchronize()
    start = time.perf_counter()
    wall: list[float] = []
    events: list[float] = []
    while len(wall) < card.rounds and (not wall or time.perf_counter() - start < ALLOWANCE):
        timer, begin = card.timer(), time.perf_counter()
        call()
        events.append(timer())
        card.synchronize()
        wall.append(1000 * (time.perf_counter() - begin))
    return Timing(statistics.median(wall), statistics.median(events), len(wall))


def release_memory() -> None:
    """Return unused memory of both allocators to the GPU."""
    import cupy

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    cupy.get_default_memory_pool().free_all_blocks()


def describe(size: Size) -> str:
    """Return the name of a size."""
    return f"{size[0]} x ({size[1]} x {size[2]})"
