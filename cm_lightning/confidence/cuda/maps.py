"""The maps of a call on the GPU."""

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import difference_from_mirrored, is_accepted
from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.cuda.device import Array, Device
from cm_lightning.confidence.cuda.iteration import BatchSolution, BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, finite_frames, for_all_frames
from cm_lightning.confidence.graph import mirror
from cm_lightning.confidence.problem import Problem, SolveInfo

FloatArray = NDArray[np.float64]


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
        system = BatchSystem(self._device, batch.graph, np.float32)
        estimate, bound = self._store(batch, system.conjugate_gradients(tolerance), system)
        return batch.ill_conditioned | ~is_accepted(estimate, bound, tolerance)

    def solve_directly(self, batch: Batch) -> None:
        """Solve by elimination in float64."""
        system = BatchSystem(self._device, batch.graph, np.float64)
        solution = system.direct()
        estimate, _ = self._store(batch, solution, system)
        frames = batch.place[0]
        self.info.fallback[frames] = self._problem.parameters.method == "cg"
        if batch.ill_conditioned.any():
            del system  # its memory is needed
            mirrored = BatchSystem(self._device, mirror(batch.graph), np.float64).direct()
            difference = to_numpy(difference_from_mirrored(solution.values, mirrored.values))
            compared = batch.ill_conditioned & np.isfinite(estimate)
            self.info.error_estimate[frames] = np.where(compared, difference, estimate)

    def _store(self, batch: Batch, solution: BatchSolution, system: BatchSystem) -> tuple[FloatArray, FloatArray]:
        """Keep a chunk's maps and what is known about them; give the estimates and bounds of the solutions."""
        xp = self._device.xp
        self._maps[batch.place] = xp.clip(solution.values, 0.0, 1.0) + batch.values
        facts = [solution.iterations.astype(np.float64), solution.error_estimate]
        if self._certify:
            facts.append(xp.where(xp.isfinite(solution.error_estimate), system.certify(solution.values), np.inf))
        iterations, estimate, *bounds = to_numpy(xp.stack(facts)).astype(np.float64)
        bound = bounds[0] if bounds else np.full(len(estimate), np.nan)
        frames = batch.place[0]
        self.info.iterations[frames] = iterations.astype(np.int64)
        self.info.error_estimate[frames] = estimate
        self.info.error_bound[frames] = bound + self._problem.rounding
        return estimate, bound
