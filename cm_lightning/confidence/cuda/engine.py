"""GPU engine, which computes on the device and the stream of the frames."""

from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import convert_like
from cm_lightning.confidence.cuda.device import device_of, make_result
from cm_lightning.confidence.cuda.gradients import fill_gradients
from cm_lightning.confidence.cuda.maps import fill_maps
from cm_lightning.confidence.problem import Problem, SolveInfo


def solve(problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
    """Compute confidence maps; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: Checked input of a call of the solver.
        certify: Whether to compute proven error bounds.

    Returns:
        Confidence maps with the shape, type and device of the frames, and information about the solution.

    Raises:
        ValueError: A frame contains NaN or infinity.
    """
    with device_of(problem.frames) as device:
        result, maps = make_result(device, problem.frames, problem.shape, problem.dtype)
        info = fill_maps(device, problem, certify, maps)
        return problem.restore(result), info


def gradient(problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Propagate a gradient from maps to frames; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: Checked input of a call of the solver, whose frames are a tensor.
        maps: Confidence maps, float64, ``(..., depth, lateral)``.
        upstream: Gradient with respect to the maps, float64, ``(..., depth, lateral)``.

    Returns:
        Gradient with respect to the frames, float64, ``(frames, depth, lateral)``, on the device of ``maps``.
    """
    with device_of(problem.frames) as device:
        map_array, upstream_array = (device.upload(tensor.reshape(problem.shape)) for tensor in (maps, upstream))
        result, derivatives = make_result(device, problem.frames, problem.shape, np.float64)
        fill_gradients(device, problem, map_array, upstream_array, derivatives)
        return convert_like(result, maps)
