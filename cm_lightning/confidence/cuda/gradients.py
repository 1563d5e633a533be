"""The way back through maps on the GPU: the same systems with another right-hand side."""

from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import like, to_numpy
from cm_lightning.confidence.cuda.device import Array, Device, beside, make_result
from cm_lightning.confidence.cuda.iteration import BatchSystem
from cm_lightning.confidence.cuda.systems import Batch, BoolArray, for_all_frames
from cm_lightning.confidence.network import weight_gradients
from cm_lightning.confidence.solver import Problem


def gradient_on_gpu(problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Carry a gradient from maps to frames; see :mod:`cm_lightning.confidence.gradient`.

    Args:
        problem: The input of the call; its frames are a tensor.
        maps: Its result in float64, of the frames' number of pixels and on their device.
        upstream: Derivatives of something by the maps, the same.

    Returns:
        Its derivatives by the frames, float64, ``(frames, depth, lateral)``, on their device.
    """
    frames: torch.Tensor = problem.frames
    with beside(frames) as device:
        solved, given = (device.upload(tensor.reshape(problem.shape)) for tensor in (maps, upstream))
        result, gradient = make_result(device, frames, problem.shape, np.float64)
        fill_gradients(device, problem, solved, given, gradient)
        return like(result, frames)


def fill_gradients(device: Device, problem: Problem, maps: Array, upstream: Array, result: Array) -> None:
    """Carry a gradient from maps to frames on a device.

    Args:
        device: Where to compute.
        problem: The input of the call.
        maps: Its result, float64, ``(frames, depth, lateral)``, on the device like the next two.
        upstream: Derivatives of something by the maps.
        result: Filled with its derivatives by the frames; 0 beforehand.
    """
    tolerance = problem.solver.tolerance

    def right_of(batch: Batch) -> Array:
        return device.xp.ascontiguousarray(upstream[batch.place]) * batch.network.unknown

    def store(batch: Batch, adjoint: Array) -> None:
        by_weight = weight_gradients(adjoint, maps[batch.place])
        result[batch.place] = problem.weight_function.gradient(batch.image, batch.domain, by_weight)

    def iterate(batch: Batch) -> BoolArray:
        if batch.beyond.all():
            return batch.beyond
        system = BatchSystem(device, batch.network, np.float32)
        solution = system.conjugate_gradients(tolerance / 2, right_of(batch))
        del system  # its memory is needed
        store(batch, solution.values)
        estimate: Any = to_numpy(solution.error_estimate)
        return batch.beyond | ~(estimate <= tolerance)

    def solve_directly(batch: Batch) -> None:
        store(batch, BatchSystem(device, batch.network, np.float64).direct(right_of(batch)).values)

    for_all_frames(device, problem, False, iterate, solve_directly)
