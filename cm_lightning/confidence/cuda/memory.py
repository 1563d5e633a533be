"""Number of frames that fit into the memory of the GPU."""

from collections.abc import Callable, Sequence

from cm_lightning.confidence.cuda.device import Device, Precision
from cm_lightning.confidence.cuda.factor import CELL_UPDATE
from cm_lightning.confidence.cuda.pattern import FACTOR, INNER, RING
from cm_lightning.confidence.cuda.schedule import schedule

# Fraction of the free memory that is used, since allocators round sizes up and leave gaps.
MEMORY_FRACTION = 0.8
# Maximum memory of the frames that are processed at once, in bytes. More frames at once are not faster, and allocators
# keep memory that was used once.
MAX_CHUNK_BYTES = 8 * 2**30
# Maximum number of blocks along the last axis of a CUDA grid, which is the number of frames.
MAX_FRAMES = 65535
# Numbers of arrays with 8 bytes per pixel: a system (four kinds of weights, slack and right-hand side) with its
# intensities, and additional arrays during iteration and certification.
SYSTEM_ARRAYS = 7
ITERATION_ARRAYS = 4
CERTIFICATE_ARRAYS = 10
# Numbers of values with 8 bytes per block of pixels, per row and per frame: partial sums and extremes, the attenuation,
# and the scales and the state of the iteration.
VALUES_PER_BLOCK = 10
VALUES_PER_FRAME = 16
# Number of pixels that a block of threads processes, which must equal the constant in kernels.cu.
PIXELS_PER_BLOCK = 1024


def arena_bytes(shape: tuple[int, int], precision: Precision) -> int:
    """Compute the memory of the arrays of one frame in an arena.

    Args:
        shape: Shape of the linear system, ``(depth, lateral)``.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solver.

    Returns:
        Maximum memory in bytes.
    """
    plan = schedule(*shape)
    pixels, cells = shape[0] * shape[1], len(plan.corners)
    number = precision().itemsize
    factor = number * (cells * (FACTOR + INNER) + plan.factor_size)
    elimination = number * (cells * CELL_UPDATE + sum(plan.work_sizes))
    substitution = number * (cells * RING + len(plan.nodes) + pixels)
    iteration = substitution + 8 * pixels * ITERATION_ARRAYS
    system = pixels * (8 * SYSTEM_ARRAYS + 1)
    small = 8 * (VALUES_PER_BLOCK * -(-pixels // PIXELS_PER_BLOCK) + shape[0] + VALUES_PER_FRAME)
    return system + small + factor + max(elimination, iteration)


def bytes_per_frame(shape: tuple[int, int], precision: Precision, certify: bool = False) -> int:
    """Compute the memory of one frame on the GPU, without its intensities and its map.

    Args:
        shape: Shape of the linear system, ``(depth, lateral)``.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solver.
        certify: Whether error bounds are computed.

    Returns:
        Maximum memory in bytes.
    """
    pixels = shape[0] * shape[1]
    mask = pixels
    certificate = 8 * pixels * CERTIFICATE_ARRAYS if certify else 0
    return arena_bytes(shape, precision) + mask + certificate


def in_chunks(
    device: Device,
    frames: Sequence[int],
    frame_bytes: int,
    max_frames: int | None,
    work: Callable[[Sequence[int]], None],
) -> None:
    """Process as many frames at once as fit into the memory, and half as many if it is exhausted.

    Args:
        device: The device.
        frames: Indices of the frames.
        frame_bytes: Memory per frame in bytes.
        max_frames: Maximum number of frames at once; None for as many as fit.
        work: Function that processes some of the frames. It is called again with fewer frames if the memory is
            exhausted.
    """
    if not frames:
        return
    available = min(MEMORY_FRACTION * device.free_bytes(), MAX_CHUNK_BYTES)
    size = max_frames or max(1, int(available / frame_bytes))
    chunks = -(-len(frames) // min(size, MAX_FRAMES))
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
