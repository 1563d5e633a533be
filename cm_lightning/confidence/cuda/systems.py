"""Linear systems on the GPU, for groups of frames that fit into the memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import MIN_WEIGHT_RATIO
from cm_lightning.confidence.arrays import intensity_unit, to_numpy
from cm_lightning.confidence.boundary import BoolArray, Boundary, Rectangle
from cm_lightning.confidence.cuda.arena import Arena
from cm_lightning.confidence.cuda.device import Array, Device, Launch, Precision
from cm_lightning.confidence.cuda.memory import PIXELS_PER_BLOCK, arena_bytes, bytes_per_frame, in_chunks
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.problem import Problem
from cm_lightning.confidence.scanning import mark_pixels
from cm_lightning.confidence.weights import EDGE_FLOOR

# Frames whose bounding boxes differ are solved together on their union if it has at most this many times as many pixels
# as the smallest of these boxes.
MAX_GROWTH = 1.25
# These must equal the constants in equations.cu: threads per block, fields of the scales, and bits of pixel kinds.
THREADS = 256
SCALE_FIELDS = 5
KIND_BITS = (np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8), np.uint8(16))


@dataclass(frozen=True, eq=False)
class Batch:
    """Linear systems of frames on the same rectangle, in arrays ``(frames, depth, lateral)`` on the device.

    Attributes:
        frames: Indices of the frames.
        rectangle: Rows and columns of the rectangle.
        image: Intensities after computation of the envelope, float64.
        kinds: Boundary conditions as bits, ``(masks, depth, lateral)``; see equations.cu.
        table: Index of each frame, index of its mask, and first and last row of its domain, int32, ``(frames, 4)``.
        decay: Factors by which intensities are multiplied, ``(frames, depth)``.
        scales: Scales of intensities and steps, ``(frames, 5)``; see equations.cu.
        graph: The linear systems.
        invalid: Nonzero for frames with NaN or infinity, int32, on the device, ``(frames,)``.
        underflowed: Nonzero for frames that cannot be solved with the factor, int32, on the device, ``(frames,)``.
        no_skips: Zeros, for kernels that can skip frames, int32, on the device, ``(frames,)``.
        ill_conditioned: Frames with weights that differ too much for conjugate gradients, on the CPU, ``(frames,)``.
        arena: Memory of these arrays and of the solution.
    """

    frames: Sequence[int]
    rectangle: Rectangle
    image: Array
    kinds: Array
    table: Array
    decay: Array
    scales: Array
    graph: RandomWalkGraph
    invalid: Array
    underflowed: Array
    no_skips: Array
    ill_conditioned: BoolArray
    arena: Arena

    def rectangle_arguments(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
        """Return the arguments for the rectangle in arrays of a shape: their frame size and width, top and left."""
        rows, columns = self.rectangle
        return shape[1] * shape[2], shape[2], rows.start, columns.start


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
    # The envelope of RF lines depends on the rows of the rectangle.
    max_growth = 1.0 if parameters.mode == "RF" else MAX_GROWTH
    for rectangle, frames in group_frames(problem.boundary, max_growth):
        shape = (rectangle[0].stop - rectangle[0].start, rectangle[1].stop - rectangle[1].start)
        remaining: list[int] = list(frames)
        if parameters.method == "cg":
            remaining = []

            def first_pass(
                chunk: Sequence[int], rectangle: Rectangle = rectangle, remaining: list[int] = remaining
            ) -> None:
                unsolved = iterate(set_up(device, problem, rectangle, chunk, np.float32))
                remaining.extend(np.asarray(chunk)[unsolved].tolist())

            in_chunks(device, frames, bytes_per_frame(shape, np.float32, certify), parameters.max_batch, first_pass)

        def second_pass(chunk: Sequence[int], rectangle: Rectangle = rectangle) -> None:
            solve_directly(set_up(device, problem, rectangle, chunk, np.float64))

        in_chunks(device, remaining, bytes_per_frame(shape, np.float64, certify), parameters.max_batch, second_pass)


def group_frames(boundary: Boundary, max_growth: float) -> list[tuple[Rectangle, list[int]]]:
    """Group frames whose domains have similar bounding boxes. Frames with an empty domain are left out.

    Args:
        boundary: Masks of all frames.
        max_growth: Maximum ratio of the number of pixels of a rectangle to that of the smallest bounding box in it.

    Returns:
        Rectangles that contain the domains of a group, and the frames of the group in ascending order.
    """
    if len(boundary.boxes) == 1:
        only = boundary.rectangle(0) if len(boundary.numbers) else None
        return [(only, list(range(len(boundary.numbers))))] if only else []
    boxes, members = np.unique(boundary.boxes, axis=0, return_inverse=True)
    members = members.reshape(-1)[boundary.numbers]
    areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    unions: list[NDArray[np.int64]] = []
    group_of_box = np.full(len(boxes), -1)
    for index in np.argsort(-areas, kind="stable"):
        if areas[index] == 0:
            continue
        box = boxes[index]
        for group, union in enumerate(unions):
            wider = np.array(
                [min(union[0], box[0]), max(union[1], box[1]), min(union[2], box[2]), max(union[3], box[3])]
            )
            if (wider[1] - wider[0]) * (wider[3] - wider[2]) <= max_growth * areas[index]:
                unions[group], group_of_box[index] = wider, group
                break
        else:
            group_of_box[index] = len(unions)
            unions.append(box)
    groups = []
    for group, union in enumerate(unions):
        top, bottom, left, right = union.tolist()
        frames = np.flatnonzero(group_of_box[members] == group).tolist()
        if frames:
            groups.append(((slice(top, bottom), slice(left, right)), frames))
    return groups


def set_up(
    device: Device,
    problem: Problem,
    rectangle: Rectangle,
    frames: Sequence[int],
    precision: Precision,
    mirrored: bool = False,
    arena: Arena | None = None,
) -> Batch:
    """Assemble the linear systems of some frames.

    Args:
        device: The device.
        problem: Checked input of a call of the solver.
        rectangle: Rectangle that contains the domains of these frames.
        frames: Indices of the frames in ascending order.
        precision: Type of the factor that will be computed.
        mirrored: Whether to reverse the order of columns.
        arena: Memory of an earlier batch of as many frames on the same rectangle, whose arrays are no longer needed; by
            default, new memory.

    Returns:
        Linear systems on the device.
    """
    count = len(frames)
    depth, lateral = (part.stop - part.start for part in rectangle)
    if arena is None:
        arena = Arena(device, count * arena_bytes((depth, lateral), precision))
    else:
        arena.clear()
    invalid, underflowed, no_skips = arena.zeros((3, count), np.int32)
    launch = device.kernels(precision)
    image = _intensities(device, launch, problem, rectangle, frames, mirrored, arena, invalid)
    kinds, table = _boundary(problem, rectangle, frames)
    if mirrored:
        kinds = kinds[..., ::-1]
    kinds, table = (device.upload(np.ascontiguousarray(array)) for array in (kinds, table))

    function, weight_floor = problem.weight_function, EDGE_FLOOR[problem.parameters.formulation]
    unit = intensity_unit(_dtype(problem.frames)) if function.normalise == "fixed" else 1.0
    rescale_intensities = int(function.normalise == "frame")
    rescale_steps = int(function.formulation == "reference" and function.normalise == "frame")
    blocks = -(-depth * lateral // PIXELS_PER_BLOCK)
    decay, scales = arena.take((count, depth)), arena.take((count, SCALE_FIELDS))
    graph = RandomWalkGraph(
        vertical=arena.take((count, depth - 1, lateral)),
        horizontal=arena.take((count, depth, lateral - 1)),
        down_right=arena.take((count, depth - 1, lateral - 1)),
        down_left=arena.take((count, depth - 1, lateral - 1)),
        slack=arena.take((count, depth, lateral)),
        unknown=arena.take((count, depth, lateral), np.uint8),
        rhs=arena.take((count, depth, lateral)),
    )
    # The sum of eight weights is at most 8 (1 + floor), and virtual nodes add 2.
    may_be_ill_conditioned = weight_floor / (10.0 * (1.0 + weight_floor)) < MIN_WEIGHT_RATIO
    grid, threads = (blocks, 1, count), (THREADS,)
    pixels = (image, kinds, table, depth, lateral)
    with arena.temporary():
        extremes, steps = arena.take((count, blocks, 2)), arena.take((count, blocks, 4))
        contrast: Any = arena.take((count, blocks, 2)) if may_be_ill_conditioned else 0
        complement = int(function.formulation != "paper")
        launch("measure_extremes", grid, threads, *pixels, function.alpha, complement, extremes, decay)
        launch("measure_steps", grid, threads, *pixels, extremes, decay, rescale_intensities, unit, scales, steps)
        penalties = (function.gamma, function.diagonal_gamma)
        launch("find_scales", (1, 1, count), threads, blocks, steps, rescale_steps, function.beta, *penalties, scales)
        arrays = (*graph, contrast)
        launch("assemble_systems", grid, threads, *pixels, decay, scales, weight_floor, *arrays)
        ill_conditioned = np.zeros(count, dtype=bool)
        if may_be_ill_conditioned:
            least, most = to_numpy(device.xp.stack([contrast[..., 0].min(axis=1), contrast[..., 1].max(axis=1)]))
            ill_conditioned = np.asarray(least < MIN_WEIGHT_RATIO * most)
    boundary = (frames, rectangle, image, kinds, table)
    return Batch(*boundary, decay, scales, graph, invalid, underflowed, no_skips, ill_conditioned, arena)


def _intensities(
    device: Device,
    launch: Launch,
    problem: Problem,
    rectangle: Rectangle,
    frames: Sequence[int],
    mirrored: bool,
    arena: Arena,
    invalid: Array,
) -> Array:
    """Return the intensities of frames on the device, and note which frames contain NaN or infinity."""
    contiguous = frames[-1] - frames[0] + 1 == len(frames)
    given = device.upload(problem.frames[slice(frames[0], frames[-1] + 1) if contiguous else list(frames)])
    rows, columns = rectangle
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    image = arena.take((len(frames), *shape))
    if given.dtype.kind == "f":
        if given.dtype not in (np.float32, np.float64):
            given = given.astype(np.float32)
        _, depth, width = given.shape
        launch(
            "load_double_frames" if given.dtype == np.float64 else "load_float_frames",
            (-(-depth * width // PIXELS_PER_BLOCK), 1, len(frames)),
            (THREADS,),
            *(device.xp.ascontiguousarray(given), depth * width, width, rows.start, columns.start),
            *(*shape, int(mirrored), image, invalid),
        )
    else:
        part = given[:, rows, columns]
        image[...] = part[..., ::-1] if mirrored else part
    if problem.parameters.mode == "RF":
        image[...] = device.envelope(image)
    return image


def _boundary(
    problem: Problem, rectangle: Rectangle, frames: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the kinds of pixels, ``(masks, depth, lateral)``, and the table of frames; see :class:`Batch`."""
    boundary = problem.boundary
    numbers, masks = np.unique(boundary.numbers[list(frames)], return_inverse=True)
    depth, lateral = (part.stop - part.start for part in rectangle)
    kinds = np.empty((len(numbers), depth, lateral), np.uint8)
    virtual = problem.parameters.formulation == "realtime"
    for number, kind in zip(numbers.tolist(), kinds, strict=True):
        domain, source, sink, reaches_source, reaches_sink = (mask[number, *rectangle] for mask in boundary.masks)
        mark_pixels(domain, source, sink, reaches_source, reaches_sink, KIND_BITS, virtual, kind)
    rows = boundary.boxes[numbers, :2][masks] - rectangle[0].start
    table = np.column_stack([frames, masks, rows[:, 0], rows[:, 1] - 1])
    return kinds, table.astype(np.int32)


def _dtype(frames: Any) -> np.dtype[Any]:
    """Return the type of frames, also of a tensor."""
    return to_numpy(frames[:0]).dtype
