"""Arrays of the elimination: the factor, and the buffers of a thread."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.dissection import LANES, Dissection, dissect
from cm_lightning.confidence.pattern import FACTOR, INNER, RING, WEIGHTS

# Number of pivots that are eliminated together, and number of columns that are updated at a time. The code in
# cm_lightning.confidence.cpu.fronts for the update of a row is written out for this number of pivots. The compiler can
# vectorise it because the distance between rows of multipliers is constant.
PANEL = 8
COLUMNS = 256


class Factor(NamedTuple):
    """Factorised linear system.

    Attributes:
        cells: Weights of each eliminated pixel, divided by the sum of its weights and slack, for all batches of cells,
            ``(batches, FACTOR, LANES)``.
        cell_pivots: Inverses of these sums, ``(batches, INNER, LANES)``.
        rows: Weights of each pivot, divided by the sum of its weights and slack, for all fronts, ``(factor_size,)``.
        pivots: Inverses of these sums by pixel, ``(pixels,)``.
    """

    cells: NDArray[np.floating]
    cell_pivots: NDArray[np.floating]
    rows: NDArray[np.floating]
    pivots: NDArray[np.floating]


class Workspace(NamedTuple):
    """Buffers of a thread, which are reused for all frames of the same shape.

    Attributes:
        front: Current front during the factorisation, and its part of the solution during the substitution.
        stack: Updates of eliminated fronts that have not been added to their parents yet, ``(stack_size,)``.
        multipliers: Ratios of the current panel by tile of COLUMNS columns, ``(tiles, PANEL * COLUMNS)``.
        panel_rows: Weights of two pixels to the pivots of the current panel, ``(2, PANEL)``.
        position: Index of each pixel in the current front, -1 for other pixels, ``(pixels,)``.
        cell_weights: Weights of the current batch of cells, ``(WEIGHTS, LANES)``.
        window: Slack or solution of the current batch of cells, ``(INNER + RING, LANES)``.
        ring: Pixels of the ring of the current cell, ``(RING,)``.
        solution: Solution of the last substitution, ``(pixels,)``.
    """

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
    """Return the row length of a front in memory: its size plus one for the slack, rounded up to a multiple of 8."""
    return (size + 8) // 8 * 8


def make_factor(dissection: Dissection, dtype: type[np.floating]) -> Factor:
    """Allocate a factor.

    Args:
        dissection: Dissection of the grid.
        dtype: Type of the factor.

    Returns:
        Factor with arbitrary values.
    """
    batches = len(dissection.cells_until)
    return Factor(
        cells=np.empty((batches, FACTOR, LANES), dtype),
        cell_pivots=np.empty((batches, INNER, LANES), dtype),
        rows=np.empty(dissection.factor_size, dtype),
        pivots=np.empty(int(np.prod(dissection.shape)), dtype),
    )


def make_workspace(dissection: Dissection, dtype: type[np.floating]) -> Workspace:
    """Allocate the buffers of a thread.

    Args:
        dissection: Dissection of the grid.
        dtype: Type of the factor.

    Returns:
        The buffers.
    """
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
    """Compute the memory that is needed for each frame that is processed at the same time on the CPU.

    Args:
        shape: Shape of the bounding box of the domain, ``(depth, lateral)``.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solver. Frames that are
            solved directly after conjugate gradients failed need both.

    Returns:
        Memory of the factor, buffers, weights and vectors in bytes, without the dissection, which all frames of the
        same shape share.
    """
    dissection = dissect(*shape)
    arrays = [*make_factor(dissection, precision), *make_workspace(dissection, precision)]
    # Arrays in float64: four weights, slack, right-hand side, known values and frame, followed by solution, residual,
    # direction and product; the direct solver only needs two of them.
    doubles = 8 + (2 if precision is np.float64 else 4)
    return int(sum(array.nbytes for array in arrays)) + doubles * 8 * shape[0] * shape[1]
