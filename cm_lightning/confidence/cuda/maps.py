"""The maps of a call on the GPU."""

from typing import Any

import numpy as np

from cm_lightning.confidence.arrays import like, to_numpy
from cm_lightning.confidence.cuda.device import Array, Device, beside, make_result
from cm_lightning.confidence.cuda.iteration import BatchSolution, BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, BoolArray, finite_frames, for_all_frames
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.solver import Problem, SolveInfo


def solve_on_gpu(problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
    """Compute maps on the GPU; what :meth:`cm_lightning.confidence.ConfidenceMapSolver.solve` does there.

    Args:
        problem: The input.
        certify: Whether to prove a bound on every map's error.

    Returns:
        The maps, of the kind of the frames and on their device, and what there is to know about them.
    """
    with beside(problem.frames) as device:
        result, maps = make_result(device, problem.frames, problem.shape, problem.dtype)
        info = fill_maps(device, problem, certify, maps)
        return like(result.reshape(*problem.leading, *problem.shape[1:]), problem.frames), info


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
    problem.refuse_non_finite(finite_frames(problem.frames))
    work = _Maps(device, problem, certify, maps)
    for_all_frames(device, problem, certify, work.iterate, work.solve_directly)
    leading = problem.leading
    return SolveInfo(
        work.iterations.reshape(leading),
        work.error_estimate.reshape(leading),
        work.error_bound.reshape(leading),
        work.fallback.reshape(leading),
    )


class _Maps:
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

    def iterate(self, batch: Batch) -> BoolArray:
        """Solve by conjugate gradients, and tell which frames that did not solve."""
        if batch.beyond.all():
            return batch.beyond
        tolerance = self._problem.solver.tolerance
        system = BatchSystem(self._device, batch.network, np.float32)
        self._store(batch, system.conjugate_gradients(tolerance / 2), system)
        frames = batch.place[0]
        # The bound is NaN, and no reason to doubt, where it was not asked for.
        doubted = self.error_bound[frames] - self._problem.rounding > tolerance
        return batch.beyond | doubted | ~(self.error_estimate[frames] <= tolerance)

    def solve_directly(self, batch: Batch) -> None:
        """Solve by elimination in float64."""
        system = BatchSystem(self._device, batch.network, np.float64)
        solution = system.direct()
        self._store(batch, solution, system)
        frames = batch.place[0]
        self.fallback[frames] = self._problem.solver.method == "cg"
        if batch.beyond.any():
            del system  # its memory is needed
            again = BatchSystem(self._device, _mirror(self._device.xp, batch.network), np.float64).direct()
            difference = self._device.xp.abs(solution.values - again.values[..., ::-1]).max(axis=(1, 2))
            estimate = self.error_estimate[frames]
            told = batch.beyond & np.isfinite(estimate)
            self.error_estimate[frames] = np.where(told, to_numpy(difference), estimate)

    def _store(self, batch: Batch, solution: BatchSolution, system: BatchSystem) -> None:
        """Keep a chunk's maps and what is known about them."""
        xp = self._device.xp
        self._maps[batch.place] = xp.clip(solution.values, 0.0, 1.0) + batch.values
        facts = [solution.iterations.astype(np.float64), solution.error_estimate]
        if self._certify:
            facts.append(xp.where(xp.isfinite(solution.error_estimate), system.certify(solution.values), np.inf))
        iterations, estimate, *bound = to_numpy(xp.stack(facts))
        frames = batch.place[0]
        self.iterations[frames] = iterations.astype(np.int64)
        self.error_estimate[frames] = estimate
        if bound:
            self.error_bound[frames] = bound[0] + self._problem.rounding


def _mirror(xp: Any, network: Network) -> Network:
    """Reverse the order of columns."""
    mirrored = Network(*(xp.ascontiguousarray(array[..., ::-1]) for array in network))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)
