"""CPU engine, in which every thread assembles, solves and stores a group of small frames or a large frame at a time."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.arrays import convert_like, to_numpy
from cm_lightning.confidence.boundary import Rectangle
from cm_lightning.confidence.cpu.compilation import compile_once
from cm_lightning.confidence.cpu.equations import Group, assemble, from_lanes, to_lanes
from cm_lightning.confidence.cpu.factorisation import lanes_of
from cm_lightning.confidence.cpu.memory import SolverPool
from cm_lightning.confidence.cpu.plan import MAX_PARTS
from cm_lightning.confidence.cpu.solver import CompiledSolver
from cm_lightning.confidence.cpu.threads import ONE_THREAD, Workers, available_cores
from cm_lightning.confidence.graph import weight_gradients
from cm_lightning.confidence.problem import Problem, SolveInfo

# Solves a group of frames.
Work = Callable[[Group, CompiledSolver, Workers], None]

_POOL = SolverPool()


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

    def solve_group(group: Group, solver: CompiledSolver, workers: Workers) -> None:
        solutions = solver(
            group.graph,
            parameters.method,
            parameters.tolerance,
            certify,
            well_conditioned=group.well_conditioned,
            workers=workers,
        )
        values = np.clip(solutions.values, 0.0, 1.0, out=solutions.values)
        values += group.values
        for lane, (frame, box) in enumerate(zip(group.frames, group.rectangles, strict=True)):
            maps[(frame, *box)] = from_lanes(values, group.lanes)[lane]
        frames, count = list(group.frames), len(group.frames)
        info.iterations[frames] = solutions.iterations[:count]
        info.error_estimate[frames] = solutions.error_estimate[:count]
        info.error_bound[frames] = solutions.error_bound[:count] + problem.rounding
        info.fallback[frames] = solutions.fallback[:count]

    _run(problem, solve_group)
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
    parameters = problem.parameters
    map_values, map_gradients = (to_numpy(tensor).reshape(problem.shape) for tensor in (maps, upstream))
    result = np.zeros(problem.shape)

    def differentiate_group(group: Group, solver: CompiledSolver, workers: Workers) -> None:
        places = [(frame, *box) for frame, box in zip(group.frames, group.rectangles, strict=True)]
        count = len(places)
        rhs = to_lanes(np.stack([map_gradients[place] for place in places]), group.lanes)
        rhs *= group.graph.unknown
        adjoint = solver(
            group.graph,
            parameters.method,
            parameters.tolerance,
            rhs=rhs,
            well_conditioned=group.well_conditioned,
            workers=workers,
        )
        values = np.stack([map_values[place] for place in places])
        weights = weight_gradients(from_lanes(adjoint.values, group.lanes)[:count], values)
        images = np.stack([problem.intensities(problem.frames[place]) for place in places])
        domain = from_lanes(group.domain, group.lanes)[:count]
        gradients = problem.weight_function.gradient(images, domain, weights)
        for place, frame_gradient in zip(places, gradients, strict=True):
            result[place] = frame_gradient

    _run(problem, differentiate_group)
    return convert_like(result, maps)


def _run(problem: Problem, work: Work) -> None:
    """Assemble and process all frames.

    Each thread processes a group of small frames, or a large frame, at a time. Large frames that remain when the others
    have been divided evenly among the threads are processed one after the other, each by all threads. Results do not
    depend on this.
    """
    groups = list(_groups(problem))
    threads = _threads(problem)
    # Before threads are started, so that only one of them compiles and prints a message.
    for small in {lanes_of(_shape(rectangles[0])) > 1 for _, rectangles in groups}:
        compile_once(problem.parameters.method == "direct", small)

    def process(members: tuple[list[int], list[Rectangle]], workers: Workers) -> None:
        frames, rectangles = members
        shape = _shape(rectangles[0])
        with _POOL.borrow(shape, workers.threads) as solver:
            work(assemble(problem, frames, rectangles, solver.lanes, workers), solver, workers)

    separate = len(groups) - len(groups) % threads
    if separate < len(groups) and lanes_of(_shape(groups[-1][1][0])) > 1:
        separate = len(groups)
    if separate:
        with Workers(min(threads, separate)) as workers:
            workers.run(lambda members: process(members, ONE_THREAD), groups[:separate])
    if separate < len(groups):
        with Workers(min(available_cores(), MAX_PARTS)) as workers:
            for members in groups[separate:]:
                process(members, workers)


def _threads(problem: Problem) -> int:
    """Return the number of groups that are processed at the same time."""
    return min(available_cores(), problem.parameters.max_batch or available_cores())


def _shape(rectangle: Rectangle) -> tuple[int, int]:
    rows, columns = rectangle
    return rows.stop - rows.start, columns.stop - columns.start


def _groups(problem: Problem) -> Iterator[tuple[list[int], list[Rectangle]]]:
    """Divide the frames whose domain is not empty into groups of the same shape; small shapes come first.

    Yields:
        Frames, and bounding boxes of their domains.
    """
    rectangles = [problem.boundary.rectangle(frame) for frame in range(problem.shape[0])]
    frames = [(frame, rectangle) for frame, rectangle in enumerate(rectangles) if rectangle is not None]

    def shape(entry: tuple[int, Rectangle]) -> tuple[int, tuple[int, int]]:
        size = _shape(entry[1])
        return size[0] * size[1], size

    for (_, size), entries in groupby(sorted(frames, key=shape), key=shape):
        members = list(entries)
        # With max_batch, the threads share the frames that are processed at the same time.
        lanes = lanes_of(size)
        if problem.parameters.max_batch is not None:
            lanes = min(lanes, max(1, problem.parameters.max_batch // _threads(problem)))
        for first in range(0, len(members), lanes):
            chosen = members[first : first + lanes]
            yield [frame for frame, _ in chosen], [rectangle for _, rectangle in chosen]
