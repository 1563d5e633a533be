"""CPU engine, in which every thread assembles, solves and stores one frame at a time."""

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
    """Compute confidence maps; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: Checked input of a call of the solver.
        certify: Whether to compute proven error bounds.

    Returns:
        Confidence maps with the shape, type and device of the frames, and information about the solution.
    """
    parameters = problem.parameters
    maps = np.zeros(problem.shape, problem.dtype)
    info = SolveInfo.for_known_maps(len(maps), certify)
    solvers = ThreadSolvers(parameters.method, parameters.tolerance, certify)

    def solve_frame(index: int) -> None:
        system = set_up(problem, index)
        if system is None:
            return
        solution = solvers.for_shape(system.values.shape)(system.graph)
        maps[system.index] = np.clip(solution.values, 0.0, 1.0) + system.values
        info.iterations[index] = solution.iterations
        info.error_estimate[index] = solution.error_estimate
        info.error_bound[index] = solution.error_bound + problem.rounding
        info.fallback[index] = solution.fallback

    compile_once(parameters.method == "direct")
    run_on_all_cores(solve_frame, len(maps), parameters.max_batch)
    return problem.restore(maps), info.reshape(problem.leading)


def gradient(problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Propagate a gradient from maps to frames; see :class:`cm_lightning.confidence.engine.Engine`.

    Args:
        problem: Checked input of a call of the solver, whose frames are a tensor.
        maps: Confidence maps, float64, ``(..., depth, lateral)``.
        upstream: Gradient with respect to the maps, float64, ``(..., depth, lateral)``.

    Returns:
        Gradient with respect to the frames, float64, ``(frames, depth, lateral)``, on the device of ``maps``.
    """
    map_values, map_gradients = (to_numpy(tensor).reshape(problem.shape) for tensor in (maps, upstream))
    result = np.zeros(problem.shape)
    solvers = ThreadSolvers(problem.parameters.method, problem.parameters.tolerance, certify=False)

    def differentiate_frame(index: int) -> None:
        system = set_up(problem, index)
        if system is None:
            return
        rhs = map_gradients[system.index] * system.graph.unknown
        adjoint = solvers.for_shape(system.values.shape)(system.graph, rhs)
        gradients = weight_gradients(adjoint.values, map_values[system.index])
        result[system.index] = problem.weight_function.gradient(system.image, system.domain, gradients)

    run_on_all_cores(differentiate_frame, len(result), problem.parameters.max_batch)
    return convert_like(result, maps)
