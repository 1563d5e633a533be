"""The GPU's engine: works where the frames are, in the order of events of whoever owns them."""

from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import convert_like
from cm_lightning.confidence.cuda.device import device_of, make_result
from cm_lightning.confidence.cuda.gradients import fill_gradients
from cm_lightning.confidence.cuda.maps import fill_maps
from cm_lightning.confidence.problem import Problem, SolveInfo


def solve(problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
    """Compute maps; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: The input.
        certify: Whether to prove a bound on every map's error.

    Returns:
        The maps, of the frames' shape, kind and device, and what there is to know about them.
    """
    with device_of(problem.frames) as device:
        result, maps = make_result(device, problem.frames, problem.shape, problem.dtype)
        info = fill_maps(device, problem, certify, maps)
        return problem.restore(result), info


def gradient(problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Carry a gradient from maps to frames; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: The input of the call; its frames are a tensor.
        maps: Its result in float64.
        upstream: Derivatives of something by the maps, float64.

    Returns:
        Its derivatives by the frames, float64, ``(frames, depth, lateral)``, on the device of ``maps``.
    """
    with device_of(problem.frames) as device:
        solved, given = (device.upload(tensor.reshape(problem.shape)) for tensor in (maps, upstream))
        result, derivatives = make_result(device, problem.frames, problem.shape, np.float64)
        fill_gradients(device, problem, solved, given, derivatives)
        return convert_like(result, maps)
