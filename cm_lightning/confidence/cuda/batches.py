"""The maps of a call on the GPU: frames grouped by the rectangle around their domain, and worked on in chunks."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import is_cupy, like, to_numpy, unit_of
from cm_lightning.confidence.boundary import Boundary
from cm_lightning.confidence.compiled import LEAST_CONTRAST
from cm_lightning.confidence.cuda.device import Array, CupyDevice, Device
from cm_lightning.confidence.cuda.iteration import BatchSolution, BatchSystem
from cm_lightning.confidence.cuda.memory import bytes_per_frame, in_chunks
from cm_lightning.confidence.network import Network, known_values, make_network
from cm_lightning.confidence.solver import Problem, SolveInfo, extent

Box = tuple[slice, slice]


def solve_on_gpu(problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
    """Compute maps on the GPU; what :meth:`cm_lightning.confidence.ConfidenceMapSolver.solve` does there.

    Args:
        problem: The input.
        certify: Whether to prove a bound on every map's error.

    Returns:
        The maps, of the kind of the frames and on their device, and what there is to know about them.
    """
    with _beside(problem.frames) as device:
        if isinstance(problem.frames, torch.Tensor) and problem.frames.is_cuda:
            # Made by torch, so that its memory is torch's to manage for as long as the caller keeps it.
            tensor = torch.zeros(
                problem.shape,
                dtype=torch.float64 if problem.dtype is np.float64 else torch.float32,
                device=problem.frames.device,
            )
            info = fill_maps(device, problem, certify, device.upload(tensor))
            return tensor.reshape(*problem.leading, *problem.shape[1:]), info
        maps = device.xp.zeros(problem.shape, problem.dtype)
        info = fill_maps(device, problem, certify, maps)
        return like(maps.reshape(*problem.leading, *problem.shape[1:]), problem.frames), info


def fill_maps(device: Device, problem: Problem, certify: bool, maps: Array) -> SolveInfo:
    """Compute maps on a device.

    Args:
        device: Where.
        problem: The input.
        certify: Whether to prove a bound on every map's error.
        maps: Filled, ``(frames, depth, lateral)``, on the device; 0 beforehand.

    Returns:
        How they were computed.
    """
    problem.refuse_non_finite(_finite(problem.frames))
    work = _Work(device, problem, certify, maps)
    for box, frames in _boxes(problem.boundary, len(maps)).items():
        work.solve(box, frames)
    leading = problem.leading
    return SolveInfo(
        work.iterations.reshape(leading),
        work.error_estimate.reshape(leading),
        work.error_bound.reshape(leading),
        work.fallback.reshape(leading),
    )


@contextmanager
def _beside(frames: Any) -> Iterator[CupyDevice]:
    """Work on the GPU that holds the frames, in its owner's order of events.

    For a tensor that is torch's current stream, and torch's allocator: it and CuPy's would starve each other.
    """
    import cupy

    if isinstance(frames, torch.Tensor) and frames.is_cuda:
        number = frames.device.index
        stream = torch.cuda.current_stream(number).cuda_stream
        allocator = cupy.cuda.PythonFunctionAllocator(
            # Frames of one column have kinds of edges without any; torch returns no address for 0 bytes.
            lambda size, device: torch.cuda.caching_allocator_alloc(max(size, 1), device, stream),
            lambda address, device: torch.cuda.caching_allocator_delete(address),  # type: ignore[no-untyped-call]
        )

        def reusable_bytes() -> int:
            return torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)

        with (
            torch.cuda.device(number),
            cupy.cuda.Device(number),
            cupy.cuda.ExternalStream(stream, number),
            cupy.cuda.using_allocator(allocator.malloc),
        ):
            yield CupyDevice(reusable_bytes, (torch.cuda.OutOfMemoryError,))
    elif is_cupy(frames):
        with frames.device:
            yield CupyDevice()
    else:
        yield CupyDevice()


def _finite(frames: Any) -> Any:
    """Tell on the host which frames hold no NaN or infinity."""
    if isinstance(frames, torch.Tensor):
        if not frames.is_floating_point():
            return np.ones(len(frames), dtype=bool)
        return torch.isfinite(frames.detach()).flatten(1).all(dim=1).cpu().numpy()
    return to_numpy(np.isfinite(frames).all(axis=(1, 2)))


def _boxes(boundary: Boundary, count: int) -> dict[tuple[int, int, int, int], list[int]]:
    """Group frames by the rectangle around their domain; those without any domain are left out."""
    frames: dict[tuple[int, int, int, int], list[int]] = defaultdict(list)
    for number, domain in enumerate(boundary.domain):
        if domain.any() and count > 0:
            rows, columns = extent(domain.any(axis=1)), extent(domain.any(axis=0))
            box = (rows.start, rows.stop, columns.start, columns.stop)
            frames[box] += [number] if len(boundary) > 1 else list(range(count))
    return frames


@dataclass(frozen=True)
class _Batch:
    """Systems of a chunk of frames.

    Attributes:
        box: Rows and columns of the rectangle.
        frames: Where the chunk's frames are: a slice, or their numbers.
        values: Known values, float64, ``(frames, depth, lateral)``.
        network: The systems.
        beyond: Frames whose weights differ by too much for a residual in float64 to mean anything, on the host.
    """

    box: Box
    frames: Any
    values: Array
    network: Network
    beyond: Any


class _Work:
    """Maps of one call in the making.

    Args:
        device: Where to compute.
        problem: The input.
        certify: Whether to bound errors.
        maps: To be filled.

    Attributes:
        iterations: As in :class:`cm_lightning.confidence.SolveInfo`, but ``(frames,)``, as the other three.
        error_estimate: The same.
        error_bound: The same.
        fallback: The same.
    """

    def __init__(self, device: Device, problem: Problem, certify: bool, maps: Array) -> None:
        self._device = device
        self._problem = problem
        self._certify = certify
        self._maps = maps
        count = len(maps)
        self.iterations = np.zeros(count, dtype=np.int64)
        self.error_estimate = np.zeros(count)
        self.error_bound = np.full(count, 0.0 if certify else np.nan)
        self.fallback = np.zeros(count, dtype=bool)

    def solve(self, corners: tuple[int, int, int, int], frames: list[int]) -> None:
        """Solve frames whose domains have the same rectangle."""
        solver = self._problem.solver
        top, bottom, left, right = corners
        box = (slice(top, bottom), slice(left, right))
        shape = (bottom - top, right - left)
        left_over = frames
        if solver.method == "cg":
            left_over = []

            def iterate(chunk: Sequence[int]) -> None:
                left_over.extend(self._iterate(self._set_up(box, chunk)))

            in_chunks(
                self._device, frames, bytes_per_frame(shape, np.float32, self._certify), solver.max_batch, iterate
            )
        if left_over:
            in_chunks(
                self._device,
                left_over,
                bytes_per_frame(shape, np.float64, self._certify),
                solver.max_batch,
                lambda chunk: self._solve_directly(self._set_up(box, chunk)),
            )

    def _set_up(self, box: Box, chunk: Sequence[int]) -> _Batch:
        """Set up the equations of some frames."""
        device, problem = self._device, self._problem
        xp = device.xp
        contiguous = chunk[-1] - chunk[0] + 1 == len(chunk)
        frames = slice(chunk[0], chunk[-1] + 1) if contiguous else list(chunk)
        image = device.upload(problem.frames[frames][:, box[0], box[1]])
        unit = unit_of(image.dtype) if problem.solver.normalise == "fixed" else 1.0
        image = image.astype(np.float64) / unit
        if problem.solver.mode == "RF":
            # One at a time: how a transform is computed may depend on how many there are.
            image = xp.stack([_envelope(xp, frame) for frame in image])
        shared = slice(None) if len(problem.boundary) == 1 else frames
        domain, source, sink, reaches_source, reaches_sink = (
            device.upload(np.ascontiguousarray(getattr(problem.boundary, name)[shared][:, box[0], box[1]]))
            for name in Boundary.__dataclass_fields__
        )
        virtual = problem.solver.formulation == "realtime"
        known = known_values(domain, source, sink, virtual, reaches_source, reaches_sink)
        values, unknown = (xp.ascontiguousarray(xp.broadcast_to(array, image.shape)) for array in known)
        weights = problem.weight_function(image, domain)
        network = make_network(weights, values, unknown, source if virtual else None, sink if virtual else None)
        beyond = to_numpy(_contrast(xp, network) < LEAST_CONTRAST)
        return _Batch(box, frames, values, network, beyond)

    def _iterate(self, batch: _Batch) -> list[int]:
        """Solve by conjugate gradients.

        Returns:
            Frames that this did not solve.
        """
        numbers = np.arange(len(self._maps))[batch.frames]
        if batch.beyond.all():
            return numbers.tolist()
        solver = self._problem.solver
        system = BatchSystem(self._device, batch.network, np.float32)
        solution = system.conjugate_gradients(solver.tolerance / 2)
        estimate, bound = self._store(batch, solution, system)
        # The bound is NaN, and no reason to doubt, where it was not asked for.
        solved = ~batch.beyond & (estimate <= solver.tolerance) & ~(bound > solver.tolerance)
        return numbers[~solved].tolist()

    def _solve_directly(self, batch: _Batch) -> None:
        """Solve by elimination in float64."""
        system = BatchSystem(self._device, batch.network, np.float64)
        solution = system.direct()
        self._store(batch, solution, system)
        self.fallback[batch.frames] = self._problem.solver.method == "cg"
        if batch.beyond.any():
            del system  # its memory is needed
            again = BatchSystem(self._device, _mirror(self._device.xp, batch.network), np.float64).direct()
            difference = self._device.xp.abs(solution.values - again.values[..., ::-1]).max(axis=(1, 2))
            estimate = self.error_estimate[batch.frames]
            told = batch.beyond & np.isfinite(estimate)
            self.error_estimate[batch.frames] = np.where(told, to_numpy(difference), estimate)

    def _store(self, batch: _Batch, solution: BatchSolution, system: BatchSystem) -> tuple[Any, Any]:
        """Keep a chunk's maps and what is known about them.

        Returns:
            Error estimates and bounds of the systems' solutions, on the host.
        """
        xp = self._device.xp
        rows, columns = batch.box
        self._maps[batch.frames, rows, columns] = xp.clip(solution.values, 0.0, 1.0) + batch.values
        facts = [solution.iterations.astype(np.float64), solution.error_estimate]
        if self._certify:
            facts.append(xp.where(xp.isfinite(solution.error_estimate), system.certify(solution.values), np.inf))
        iterations, estimate, *bounds = to_numpy(xp.stack(facts))
        bound = bounds[0] if bounds else np.full_like(estimate, np.nan)
        self.iterations[batch.frames] = iterations.astype(np.int64)
        self.error_estimate[batch.frames] = estimate
        self.error_bound[batch.frames] = bound + self._problem.rounding
        return estimate, bound


def _envelope(xp: Any, lines: Array) -> Array:
    """Take the magnitude of the analytic signal along depth, ``(depth, lateral)``."""
    spectrum = xp.fft.fft(lines, axis=0)
    depth = len(lines)
    spectrum[1 : (depth + 1) // 2] *= 2.0
    spectrum[depth // 2 + 1 :] = 0.0
    return xp.abs(xp.fft.ifft(spectrum, axis=0))


def _contrast(xp: Any, network: Network) -> Array:
    """Divide each frame's smallest weight by its largest; 1 where it has none."""
    smallest, largest = np.inf, 0.0
    for name in ("vertical", "horizontal", "down_right", "down_left", "slack"):
        weight = getattr(network, name)
        if weight.size:
            smallest = xp.minimum(smallest, xp.where(weight > 0, weight, np.inf).min(axis=(1, 2)))
            largest = xp.maximum(largest, weight.max(axis=(1, 2)))
    return xp.where(largest > 0, smallest / xp.where(largest > 0, largest, 1.0), 1.0)


def _mirror(xp: Any, network: Network) -> Network:
    """Reverse the order of columns."""
    mirrored = Network(*(xp.ascontiguousarray(array[..., ::-1]) for array in network))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)
