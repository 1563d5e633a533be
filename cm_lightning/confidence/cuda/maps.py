"""The maps of a call on the GPU."""

from typing import Any

import numpy as np

from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.cuda.device import Array, Device
from cm_lightning.confidence.cuda.iteration import BatchSolution, BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, finite_frames, for_all_frames
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.problem import Problem, SolveInfo


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
    problem.check_finite(finite_frames(problem.frames))
    work = _Maps(device, problem, certify, maps)
    for_all_frames(device, problem, certify, work.iterate, work.solve_directly)
    return work.info.reshape(problem.leading)


class _Maps:
    """Maps of one call in the making.

    Args:
        device: Where to compute.
        problem: The input.
        certify: Whether to bound errors.
        maps: To be filled.

    Attributes:
        info: What is known about them so far; arrays of shape ``(frames,)``.
    """

    def __init__(self, device: Device, problem: Problem, certify: bool, maps: Array) -> None:
        self._device = device
        self._problem = problem
        self._certify = certify
        self._maps = maps
        self.info = SolveInfo.blank(len(maps), certify)

    def iterate(self, batch: Batch) -> BoolArray:
        """Solve by conjugate gradients, and tell which frames that did not solve."""
        if batch.ill_conditioned.all():
            return batch.ill_conditioned
        tolerance = self._problem.parameters.tolerance
        system = BatchSystem(self._device, batch.network, np.float32)
        self._store(batch, system.conjugate_gradients(tolerance / 2), system)
        frames = batch.place[0]
        # The bound is NaN, and no reason to doubt, where it was not asked for.
        doubted = self.info.error_bound[frames] - self._problem.rounding > tolerance
        return batch.ill_conditioned | doubted | ~(self.info.error_estimate[frames] <= tolerance)

    def solve_directly(self, batch: Batch) -> None:
        """Solve by elimination in float64."""
        system = BatchSystem(self._device, batch.network, np.float64)
        solution = system.direct()
        self._store(batch, solution, system)
        frames = batch.place[0]
        self.info.fallback[frames] = self._problem.parameters.method == "cg"
        if batch.ill_conditioned.any():
            del system  # its memory is needed
            again = BatchSystem(self._device, _mirror(self._device.xp, batch.network), np.float64).direct()
            difference = self._device.xp.abs(solution.values - again.values[..., ::-1]).max(axis=(1, 2))
            estimate = self.info.error_estimate[frames]
            told = batch.ill_conditioned & np.isfinite(estimate)
            self.info.error_estimate[frames] = np.where(told, to_numpy(difference), estimate)

    def _store(self, batch: Batch, solution: BatchSolution, system: BatchSystem) -> None:
        """Keep a chunk's maps and what is known about them."""
        xp = self._device.xp
        self._maps[batch.place] = xp.clip(solution.values, 0.0, 1.0) + batch.values
        facts = [solution.iterations.astype(np.float64), solution.error_estimate]
        if self._certify:
            facts.append(xp.where(xp.isfinite(solution.error_estimate), system.certify(solution.values), np.inf))
        iterations, estimate, *bound = to_numpy(xp.stack(facts))
        frames = batch.place[0]
        self.info.iterations[frames] = iterations.astype(np.int64)
        self.info.error_estimate[frames] = estimate
        if bound:
            self.info.error_bound[frames] = bound[0] + self._problem.rounding


def _mirror(xp: Any, network: Network) -> Network:
    """Reverse the order of columns."""
    mirrored = Network(*(xp.ascontiguousarray(array[..., ::-1]) for array in network))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)
