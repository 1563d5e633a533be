"""Memory of the elimination: its result, and the buffers of a thread."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.dissection import LANES, Dissection, dissect
from cm_lightning.confidence.pattern import FACTOR, INNER, RING, WEIGHTS

# Pivots that are eliminated together, and columns that are updated at a time. The update of a row by PANEL pivots is
# written out in cm_lightning.confidence.cpu.fronts; the fixed number of columns between rows of multipliers lets the
# compiler vectorise it.
PANEL = 8
COLUMNS = 256


class Factor(NamedTuple):
    """An eliminated system.

    Attributes:
        cells: Of every batch of cells, each eliminated pixel's weights over their sum, ``(batches, FACTOR, LANES)``.
        cell_pivots: The inverses of those sums, ``(batches, INNER, LANES)``.
        rows: Of every front, each pivot's weights over their sum, ``(factor_size,)``.
        pivots: The inverses of those sums, by pixel, ``(pixels,)``.
    """

    cells: NDArray[np.floating]
    cell_pivots: NDArray[np.floating]
    rows: NDArray[np.floating]
    pivots: NDArray[np.floating]


class Workspace(NamedTuple):
    """Buffers that one thread reuses from frame to frame."""

    front: NDArray[np.floating]
    stack: NDArray[np.floating]
    multipliers: NDArray[np.floating]
    panel_rows: NDArray[np.floating]
    position: NDArray[np.int32]
    cell_weights: NDArray[np.floating]
    window: NDArray[np.floating]
    ring: NDArray[np.int64]
    solution: NDArray[np.floating]


@njit(cache=True, nogil=True)
def front_stride(size: int) -> int:
    """Length of a row in a front's buffer: its pixels and the slack, up to a multiple of 8."""
    return (size + 8) // 8 * 8


def make_factor(dissection: Dissection, dtype: type[np.floating]) -> Factor:
    """Allocate a factor."""
    batches = len(dissection.cells_until)
    return Factor(
        cells=np.empty((batches, FACTOR, LANES), dtype),
        cell_pivots=np.empty((batches, INNER, LANES), dtype),
        rows=np.empty(dissection.factor_size, dtype),
        pivots=np.empty(int(np.prod(dissection.shape)), dtype),
    )


def make_workspace(dissection: Dissection, dtype: type[np.floating]) -> Workspace:
    """Allocate a thread's buffers."""
    largest = dissection.largest_front
    stride = front_stride(largest)
    pixels = int(np.prod(dissection.shape))
    return Workspace(
        front=np.empty(max(largest * stride, 1), dtype),
        stack=np.empty(dissection.stack_size, dtype),
        multipliers=np.empty((-(-stride // COLUMNS), PANEL * COLUMNS), dtype),
        panel_rows=np.empty((2, PANEL), dtype),
        position=np.full(pixels, -1, np.int32),
        cell_weights=np.empty((WEIGHTS, LANES), dtype),
        window=np.empty((INNER + RING, LANES), dtype),
        ring=np.empty(RING, np.int64),
        solution=np.empty(pixels, dtype),
    )


def bytes_per_frame(shape: tuple[int, int], precision: type[np.float32] | type[np.float64]) -> int:
    """Count the memory that a frame in flight takes on the CPU.

    Args:
        shape: ``(depth, lateral)`` of the rectangle around the frame's domain.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solve; a frame that falls
            back to that takes both.

    Returns:
        Bytes of factor, buffers, weights and vectors, without the plan that all frames of a shape share.
    """
    dissection = dissect(*shape)
    arrays = [*make_factor(dissection, precision), *make_workspace(dissection, precision)]
    # In float64: four weights, slack, right-hand side, known values and frame; then solution, residual, direction and
    # product, of which the direct solve has two.
    doubles = 8 + (2 if precision is np.float64 else 4)
    return int(sum(array.nbytes for array in arrays)) + doubles * 8 * shape[0] * shape[1]
