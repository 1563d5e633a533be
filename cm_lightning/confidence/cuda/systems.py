"""From a call's frames to systems on the GPU: grouped by the rectangle around their domain, and in chunks that fit."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.accuracy import is_ill_conditioned
from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray, Boundary, rectangle_around
from cm_lightning.confidence.cuda.device import Device
from cm_lightning.confidence.cuda.memory import bytes_per_frame, in_chunks
from cm_lightning.confidence.graph import BoundaryConditions, boundary_conditions, make_graph
from cm_lightning.confidence.problem import Problem, System

# First and end row, first and end column.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Batch(System):
    """Systems of some frames, each on the same rectangle; arrays are ``(frames, depth, lateral)``, on the device.

    Attributes:
        ill_conditioned: Frames whose weights differ by too much for a residual in float64 to mean anything, on the
            host, ``(frames,)``.
    """

    ill_conditioned: BoolArray


def for_all_frames(
    device: Device,
    problem: Problem,
    certify: bool,
    iterate: Callable[[Batch], BoolArray],
    solve_directly: Callable[[Batch], None],
) -> None:
    """Solve every frame of a call, if need be in two passes.

    Args:
        device: Where to compute.
        problem: The input.
        certify: Whether errors will be bounded, which takes memory.
        iterate: Solves systems by conjugate gradients, and tells which frames that did not solve.
        solve_directly: Solves those systems, or all if the method is ``direct``.
    """
    parameters = problem.parameters
    for box, frames in _boxes(problem).items():
        shape = (box[1] - box[0], box[3] - box[2])
        left_over = frames
        if parameters.method == "cg":
            left_over = []

            def first_pass(chunk: Sequence[int], box: Box = box, left_over: list[int] = left_over) -> None:
                unsolved = iterate(set_up(device, problem, box, chunk))
                left_over.extend(np.asarray(chunk)[unsolved].tolist())

            in_chunks(device, frames, bytes_per_frame(shape, np.float32, certify), parameters.max_batch, first_pass)

        def second_pass(chunk: Sequence[int], box: Box = box) -> None:
            solve_directly(set_up(device, problem, box, chunk))

        in_chunks(device, left_over, bytes_per_frame(shape, np.float64, certify), parameters.max_batch, second_pass)


def set_up(device: Device, problem: Problem, box: Box, frames: Sequence[int]) -> Batch:
    """Set up the systems of some frames.

    Args:
        device: Where to compute.
        problem: The input.
        box: The rectangle around their domains.
        frames: Their numbers, ascending.

    Returns:
        The systems, on the device.
    """
    xp = device.xp
    contiguous = frames[-1] - frames[0] + 1 == len(frames)
    place = (slice(frames[0], frames[-1] + 1) if contiguous else list(frames), slice(*box[:2]), slice(*box[2:]))
    image = problem.intensities(device.upload(_part(problem.frames, place)))
    shared = (slice(None), *place[1:]) if len(problem.boundary) == 1 else place
    domain, source, sink, reaches_source, reaches_sink = (
        device.upload(np.ascontiguousarray(_part(getattr(problem.boundary, name), shared)))
        for name in Boundary.__dataclass_fields__
    )
    virtual = problem.parameters.formulation == "realtime"
    conditions = BoundaryConditions(
        # One mask may serve all frames; every frame needs values of its own.
        *(
            array if array.shape == image.shape else xp.broadcast_to(array, image.shape).copy()
            for array in boundary_conditions(domain, source, sink, reaches_source, reaches_sink, virtual)
        )
    )
    graph = make_graph(problem.weight_function(image, domain), conditions)
    ill_conditioned = to_numpy(is_ill_conditioned(graph)).astype(bool)
    return Batch(place, image, domain, conditions.values, graph, ill_conditioned)


def finite_frames(frames: Any) -> BoolArray:
    """Tell which frames hold no NaN or infinity; the answer of a GPU is waited for.

    Args:
        frames: A NumPy or CuPy array or a tensor, ``(frames, depth, lateral)``.

    Returns:
        A flag for each, on the host.
    """
    finite: Any
    if not isinstance(frames, torch.Tensor):
        finite = np.isfinite(frames).all(axis=(1, 2))
    elif frames.is_floating_point():
        finite = torch.isfinite(frames.detach()).flatten(1).all(dim=1)
    else:
        finite = torch.ones(len(frames), dtype=torch.bool)
    return to_numpy(finite).astype(bool)


def _boxes(problem: Problem) -> dict[Box, list[int]]:
    """Group frames by the rectangle around their domain; those without any domain are left out."""
    frames: dict[Box, list[int]] = defaultdict(list)
    for number, domain in enumerate(problem.boundary.domain):
        if domain.any():
            rows, columns = rectangle_around(domain)
            box = (rows.start, rows.stop, columns.start, columns.stop)
            frames[box] += [number] if len(problem.boundary) > 1 else range(problem.shape[0])
    return frames


def _part(array: Any, place: tuple[Any, slice, slice]) -> Any:
    """Take a rectangle of some frames, of an array of any kind."""
    return array[place[0]][:, place[1], place[2]]
