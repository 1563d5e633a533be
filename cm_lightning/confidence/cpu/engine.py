"""The CPU's engine: sets up, solves and stores one frame at a time on each thread."""

from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import convert_like, to_numpy
from cm_lightning.confidence.cpu.compilation import compile_once
from cm_lightning.confidence.cpu.equations import set_up
from cm_lightning.confidence.cpu.solver import ThreadSolvers
from cm_lightning.confidence.cpu.threads import run_on_all_cores
from cm_lightning.confidence.graph import weight_gradients
from cm_lightning.confidence.problem import Problem, SolveInfo


def solve(problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
    """Compute maps; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: The input.
        certify: Whether to prove a bound on every map's error.

    Returns:
        The maps, of the frames' shape, kind and device, and what there is to know about them.
    """
    parameters = problem.parameters
    maps = np.zeros(problem.shape, problem.dtype)
    info = SolveInfo.blank(len(maps), certify)
    solvers = ThreadSolvers(parameters.method, parameters.tolerance, certify)

    def solve_frame(index: int) -> None:
        system = set_up(problem, index)
        if system is None:
            return
        solution = solvers.for_shape(system.values.shape)(system.graph)
        maps[system.place] = np.clip(solution.values, 0.0, 1.0) + system.values
        info.iterations[index] = solution.iterations
        info.error_estimate[index] = solution.error_estimate
        info.error_bound[index] = solution.error_bound + problem.rounding
        info.fallback[index] = solution.fallback

    compile_once(parameters.method == "direct")
    run_on_all_cores(solve_frame, len(maps), parameters.max_batch)
    return problem.restore(maps), info.reshape(problem.leading)


def gradient(problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Carry a gradient from maps to frames; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: The input of the call.
        maps: Its result in float64.
        upstream: Derivatives of something by the maps, float64.

    Returns:
        Its derivatives by the frames, float64, ``(frames, depth, lateral)``, on the device of ``maps``.
    """
    solved, given = (to_numpy(tensor).reshape(problem.shape) for tensor in (maps, upstream))
    result = np.zeros(problem.shape)
    solvers = ThreadSolvers(problem.parameters.method, problem.parameters.tolerance, certify=False)

    def differentiate(index: int) -> None:
        system = set_up(problem, index)
        if system is None:
            return
        right = given[system.place] * system.graph.unknown
        adjoint = solvers.for_shape(system.values.shape)(system.graph, right)
        by_weight = weight_gradients(adjoint.values, solved[system.place])
        result[system.place] = problem.weight_function.gradient(system.image, system.domain, by_weight)

    run_on_all_cores(differentiate, len(result), problem.parameters.max_batch)
    return convert_like(result, maps)
