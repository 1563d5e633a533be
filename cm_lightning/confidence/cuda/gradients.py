"""Gradients on the GPU: the same linear systems with another right-hand side."""

import numpy as np

from cm_lightning.confidence.accuracy import is_accepted
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.cuda.device import Array, Device
from cm_lightning.confidence.cuda.iteration import BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, for_all_frames
from cm_lightning.confidence.problem import Problem


def fill_gradients(device: Device, problem: Problem, maps: Array, upstream: Array, result: Array) -> None:
    """Propagate a gradient from maps to frames on a device.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        maps: Confidence maps on the device, float64, ``(frames, depth, lateral)``.
        upstream: Gradient with respect to the maps on the device, float64, ``(frames, depth, lateral)``.
        result: Output on the device, initially 0: gradient with respect to the frames, ``(frames, depth, lateral)``.
    """
    tolerance = problem.parameters.tolerance

    def right_of(batch: Batch) -> Array:
        frames = device.xp.ascontiguousarray(upstream[list(batch.frames)][:, *batch.rectangle])
        return frames * batch.graph.unknown

    def iterate(batch: Batch) -> BoolArray:
        if batch.ill_conditioned.all():
            return batch.ill_conditioned
        system = BatchSystem(device, batch, np.float32)
        solution = system.conjugate_gradients(tolerance, right_of(batch))
        system.propagate(solution.values, maps, result)
        _, estimate, _ = solution.report()
        return batch.ill_conditioned | ~is_accepted(estimate, np.nan, tolerance)

    def solve_directly(batch: Batch) -> None:
        system = BatchSystem(device, batch, np.float64)
        system.propagate(system.direct(right_of(batch)).values, maps, result)

    for_all_frames(device, problem, False, iterate, solve_directly)
