"""Computation of the confidence maps for one call of the solver on the GPU."""

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import difference_from_mirrored, is_accepted
from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.cuda.device import Array, Device
from cm_lightning.confidence.cuda.iteration import BatchSolution, BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, for_all_frames, set_up
from cm_lightning.confidence.problem import Problem, SolveInfo

FloatArray = NDArray[np.float64]


def fill_maps(device: Device, problem: Problem, certify: bool, maps: Array) -> SolveInfo:
    """Compute confidence maps on a device.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        certify: Whether to compute proven error bounds.
        maps: Output on the device, initially 0: confidence maps, ``(frames, depth, lateral)``.

    Returns:
        Information about the solutions.

    Raises:
        ValueError: A frame contains NaN or infinity.
    """
    without_domain = [frame for frame in range(len(maps)) if problem.boundary.rectangle(frame) is None]
    if without_domain:
        finite = np.isfinite(to_numpy(problem.frames[without_domain])).all(axis=(1, 2))
        problem.check_finite(finite, without_domain)
    work = _Maps(device, problem, certify, maps)
    for_all_frames(device, problem, certify, work.iterate, work.solve_directly)
    return work.info.reshape(problem.leading)


class _Maps:
    """Computation of the confidence maps for one call of the solver.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        certify: Whether to compute proven error bounds.
        maps: Output, ``(frames, depth, lateral)``.

    Attributes:
        info: Information about the maps that have been computed, ``(frames,)`` each.
    """

    def __init__(self, device: Device, problem: Problem, certify: bool, maps: Array) -> None:
        self._device = device
        self._problem = problem
        self._certify = certify
        self._maps = maps
        self.info = SolveInfo.for_known_maps(len(maps), certify)

    def iterate(self, batch: Batch) -> BoolArray:
        """Solve by conjugate gradients, and return which frames must be solved directly."""
        if batch.ill_conditioned.all():
            return batch.ill_conditioned
        tolerance = self._problem.parameters.tolerance
        system = BatchSystem(self._device, batch, np.float32)
        estimate, bound = self._store(batch, system.conjugate_gradients(tolerance), system)
        return batch.ill_conditioned | ~is_accepted(estimate, bound, tolerance)

    def solve_directly(self, batch: Batch) -> None:
        """Solve directly in float64."""
        frames = list(batch.frames)
        system = BatchSystem(self._device, batch, np.float64)
        solution = system.direct()
        estimate, _ = self._store(batch, solution, system)
        self.info.fallback[frames] = self._problem.parameters.method == "cg"
        if batch.ill_conditioned.any():
            values = solution.values.copy()
            mirrored = set_up(
                self._device, self._problem, batch.rectangle, frames, np.float64, mirrored=True, arena=batch.arena
            )
            flipped = BatchSystem(self._device, mirrored, np.float64).direct()
            difference = to_numpy(difference_from_mirrored(values, flipped.values))
            compared = batch.ill_conditioned & np.isfinite(estimate)
            self.info.error_estimate[frames] = np.where(compared, difference, estimate)

    def _store(self, batch: Batch, solution: BatchSolution, system: BatchSystem) -> tuple[FloatArray, FloatArray]:
        """Store the maps of a batch with their information, and return the error estimates and bounds."""
        system.store(solution.values, self._maps)
        bound = np.full(len(batch.frames), np.nan)
        if self._certify:
            bound = np.asarray(to_numpy(system.certify(solution.values)), np.float64)
        iterations, estimate, finite = solution.report()
        self._problem.check_finite(finite, batch.frames)
        bound = np.where(np.isfinite(estimate), bound, np.inf) if self._certify else bound
        frames = list(batch.frames)
        self.info.iterations[frames] = iterations
        self.info.error_estimate[frames] = estimate
        self.info.error_bound[frames] = bound + self._problem.rounding
        return estimate, bound
