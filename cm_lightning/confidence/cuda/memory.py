"""How many frames fit, and working with fewer where memory runs out all the same."""

from collections.abc import Callable, Sequence

from cm_lightning.confidence.cuda.device import Device, Precision
from cm_lightning.confidence.cuda.factor import CELL_UPDATE
from cm_lightning.confidence.cuda.schedule import schedule
from cm_lightning.confidence.pattern import FACTOR, INNER, RING

# Share of the free memory to plan with: allocators round up and leave gaps.
SHARE = 0.8
# Most blocks that CUDA takes along a grid's last axis, which is the frames'.
MOST_FRAMES = 65535
# Arrays of 8 bytes a pixel: a system (four kinds of weights, slack, right-hand side) with its intensities and known
# values, and what is held besides while it is set up, iterated on, and certified.
SYSTEM_ARRAYS = 8
SET_UP_ARRAYS = 9
ITERATION_ARRAYS = 5
CERTIFICATE_ARRAYS = 10


def bytes_per_frame(shape: tuple[int, int], precision: Precision, certify: bool = False) -> int:
    """Count the memory that a frame takes on the GPU, its intensities and its map aside.

    Args:
        shape: ``(depth, lateral)`` of the rectangle around the frame's domain.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solve.
        certify: Whether errors are bounded.

    Returns:
        Bytes at the moment when most are in use.
    """
    plan = schedule(*shape)
    pixels, cells = shape[0] * shape[1], len(plan.corners)
    number = precision().itemsize
    factor = number * (cells * (FACTOR + INNER) + plan.factor_size)
    elimination = number * (cells * CELL_UPDATE + sum(plan.work_sizes))
    substitution = number * (cells * RING + len(plan.nodes) + pixels)
    iteration = substitution + 8 * pixels * (ITERATION_ARRAYS + (CERTIFICATE_ARRAYS if certify else 0))
    system = pixels * (8 * SYSTEM_ARRAYS + 1)
    return system + max(8 * pixels * SET_UP_ARRAYS, factor + max(elimination, iteration))


def in_chunks(
    device: Device, frames: Sequence[int], bytes_each: int, most: int | None, work: Callable[[Sequence[int]], None]
) -> None:
    """Work on as many frames at a time as fit; where memory runs out, on half as many.

    Args:
        device: Where the work takes memory.
        frames: Numbers of the frames.
        bytes_each: What a frame takes.
        most: Frames at a time; as many as fit if None.
        work: Called with some of the frames; may be called again with fewer, if it ran out of memory.
    """
    if not frames:
        return
    size = most or max(1, int(SHARE * device.free_bytes() / bytes_each))
    chunks = -(-len(frames) // min(size, MOST_FRAMES))
    size = -(-len(frames) // chunks)
    begin = 0
    while begin < len(frames):
        chunk = frames[begin : begin + size]
        try:
            work(chunk)
            begin += len(chunk)
        except device.out_of_memory:
            if len(chunk) == 1:
                raise
            size = len(chunk) // 2
