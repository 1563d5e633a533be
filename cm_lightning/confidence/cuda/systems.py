"""Linear systems on the GPU, for groups of frames with the same bounding box that fit into the memory."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cm_lightning.confidence.accuracy import is_ill_conditioned
from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray, Boundary, bounding_box
from cm_lightning.confidence.cuda.device import Device
from cm_lightning.confidence.cuda.memory import bytes_per_frame, in_chunks
from cm_lightning.confidence.graph import BoundaryConditions, boundary_conditions, make_graph
from cm_lightning.confidence.problem import Problem, System

# First and end row, first and end column.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Batch(System):
    """Linear systems of frames with the same bounding box, in arrays ``(frames, depth, lateral)`` on the device.

    Attributes:
        ill_conditioned: Frames with weights that differ too much for conjugate gradients, on the CPU, ``(frames,)``.
    """

    ill_conditioned: BoolArray


def for_all_frames(
    device: Device,
    problem: Problem,
    certify: bool,
    iterate: Callable[[Batch], BoolArray],
    solve_directly: Callable[[Batch], None],
) -> None:
    """Solve all frames of a call, in two passes if necessary.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        certify: Whether error bounds are computed, which needs memory.
        iterate: Function that solves systems by conjugate gradients and returns which frames must be solved directly.
        solve_directly: Function that solves these systems, or all of them if the method is ``direct``.
    """
    parameters = problem.parameters
    for box, frames in _boxes(problem).items():
        shape = (box[1] - box[0], box[3] - box[2])
        remaining = frames
        if parameters.method == "cg":
            remaining = []

            def first_pass(chunk: Sequence[int], box: Box = box, remaining: list[int] = remaining) -> None:
                unsolved = iterate(set_up(device, problem, box, chunk))
                remaining.extend(np.asarray(chunk)[unsolved].tolist())

            in_chunks(device, frames, bytes_per_frame(shape, np.float32, certify), parameters.max_batch, first_pass)

        def second_pass(chunk: Sequence[int], box: Box = box) -> None:
            solve_directly(set_up(device, problem, box, chunk))

        in_chunks(device, remaining, bytes_per_frame(shape, np.float64, certify), parameters.max_batch, second_pass)


def set_up(device: Device, problem: Problem, box: Box, frames: Sequence[int]) -> Batch:
    """Assemble the linear systems of some frames.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        box: Bounding box of the domains of these frames.
        frames: Indices of the frames in ascending order.

    Returns:
        Linear systems on the device.
    """
    xp = device.xp
    contiguous = frames[-1] - frames[0] + 1 == len(frames)
    index = (slice(frames[0], frames[-1] + 1) if contiguous else list(frames), slice(*box[:2]), slice(*box[2:]))
    image = problem.intensities(device.upload(_part(problem.frames, index)))
    shared = (slice(None), *index[1:]) if len(problem.boundary) == 1 else index
    domain, source, sink, reaches_source, reaches_sink = (
        device.upload(np.ascontiguousarray(_part(getattr(problem.boundary, name), shared)))
        for name in Boundary.__dataclass_fields__
    )
    virtual = problem.parameters.formulation == "realtime"
    conditions = BoundaryConditions(
        # A mask may be shared by all frames, but every frame needs separate values.
        *(
            array if array.shape == image.shape else xp.broadcast_to(array, image.shape).copy()
            for array in boundary_conditions(domain, source, sink, reaches_source, reaches_sink, virtual)
        )
    )
    graph = make_graph(problem.weight_function(image, domain), conditions)
    ill_conditioned = to_numpy(is_ill_conditioned(graph)).astype(bool)
    return Batch(index, image, domain, conditions.values, graph, ill_conditioned)


def finite_frames(frames: Any) -> BoolArray:
    """Return which frames are finite, after waiting for the GPU.

    Args:
        frames: NumPy array, CuPy array or tensor, ``(frames, depth, lateral)``.

    Returns:
        Mask of the finite frames, on the CPU, ``(frames,)``.
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
    """Group frames by the bounding box of their domain. Frames with an empty domain are left out."""
    frames: dict[Box, list[int]] = defaultdict(list)
    for number, domain in enumerate(problem.boundary.domain):
        if domain.any():
            rows, columns = bounding_box(domain)
            box = (rows.start, rows.stop, columns.start, columns.stop)
            frames[box] += [number] if len(problem.boundary) > 1 else range(problem.shape[0])
    return frames


def _part(array: Any, index: tuple[Any, slice, slice]) -> Any:
    """Return a rectangle of some frames of an array of any type."""
    return array[index[0]][:, index[1], index[2]]
