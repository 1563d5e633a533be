"""The order in which pixels are eliminated: nested dissection of a grid into cells of 7 x 7 pixels.

Every eighth row and column is a cutting line, one pixel wide. No edge of the 8-neighbour graph crosses such a line, so
that what lies on both of its sides can be eliminated independently, and the line after them (George 1973: Nested
dissection of a regular finite element mesh). Halving the grid along cutting lines again and again gives a tree of
rectangles whose leaves are the cells. Because the lines are fixed, all cells are alike: the ones at the lower and right
border only lack pixels. They are eliminated several at a time, one after the other the cutting lines above them.

What a rectangle needs while its cutting line is eliminated is called a front: the line's pixels ("pivots") and the ring
of pixels around the rectangle, which are eliminated later.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[Any]

CELL = 7  # side of a cell
PITCH = CELL + 1  # from one cutting line to the next
LANES = 8  # cells of a batch at most: the CPU eliminates them side by side in one vector register


class Dissection(NamedTuple):
    """Cells and fronts of a grid in the order of their elimination; compiled code takes it as it is.

    The order is: the cells of batch 0, the fronts up to ``fronts_until[0]``, the cells of batch 1, and so on. The
    batches are small subtrees, so that few results wait for their parent at a time.

    Attributes:
        shape: ``(depth, lateral)``.
        corners: First row and column of every cell, ``(cells, 2)``.
        cells_until: End of each batch in ``corners``, ``(batches,)``.
        fronts_until: First front that is not ready when a batch is done, ``(batches,)``.
        nodes: Pixels (row-major numbers) of every front, one front after the other: first its pivots, then its ring,
            both in the order in which they are eliminated.
        start: Where each front begins in ``nodes``, and the end of the last; ``(fronts + 1,)``.
        pivots: Number of pivots of each front, ``(fronts,)``.
        children: The two halves of each front's rectangle, ``(fronts, 2)``: a front's number, or ``-2 - lane`` for a
            cell of the front's batch, or -1 where the half is empty.
        factor_start: Where each front's rows begin in the factor, and the factor's length; ``(fronts + 1,)``.
        stack_size: Most numbers that updates of finished fronts, waiting for their parent, take at a time.
    """

    shape: tuple[int, int]
    corners: NDArray[np.int64]
    cells_until: NDArray[np.int64]
    fronts_until: NDArray[np.int64]
    nodes: NDArray[np.int32]
    start: NDArray[np.int64]
    pivots: NDArray[np.int64]
    children: NDArray[np.int64]
    factor_start: NDArray[np.int64]
    stack_size: int

    @property
    def largest_front(self) -> int:
        """Most pixels that a front has; 0 where there is but one cell."""
        return int(np.diff(self.start).max(initial=0))

    @property
    def factor_size(self) -> int:
        """Numbers that the factor holds for the fronts."""
        return int(self.factor_start[-1])


@lru_cache(maxsize=16)
def dissect(depth: int, lateral: int) -> Dissection:
    """Plan the elimination of a ``depth`` x ``lateral`` grid; plans of the last 16 shapes are kept.

    Args:
        depth: Rows, at least 1.
        lateral: Columns, at least 1.

    Returns:
        The plan.
    """
    rectangles, cuts, children, corners, cells_until, fronts_until = _cut(depth, lateral)
    rank = _rank(rectangles, cuts, depth, lateral)
    nodes, start, pivots = _fronts(rectangles, cuts, rank, depth, lateral)
    ring = np.diff(start) - pivots
    rows = pivots * (pivots - 1) // 2 + pivots * ring
    return Dissection(
        shape=(depth, lateral),
        corners=corners,
        cells_until=cells_until,
        fronts_until=fronts_until,
        nodes=nodes,
        start=start,
        pivots=pivots,
        children=children,
        factor_start=np.concatenate([[0], np.cumsum(rows)]),
        stack_size=_peak(ring * (ring + 1), children),
    )


@njit(cache=True, nogil=True)
def _cells_along(length: int) -> int:
    """Count the cells along a side; the last may be empty, right after a cutting line."""
    return length // PITCH + 1


@njit(cache=True, nogil=True)
def _first_half(cells: int) -> int:
    """Choose how many cells lie before a cut: half of many, of few a power of two, so that batches are full."""
    if cells >= 8:
        return (cells + 1) // 2
    power = 1
    while 2 * power < cells:
        power *= 2
    return power


@njit(cache=True, nogil=True)
def _cut(depth: int, lateral: int) -> tuple[Integers, ...]:
    """Halve the grid until only cells are left.

    Returns:
        For every front its rectangle ``(first row, end row, first column, end column)``, its cutting line (a row, or
        ``depth`` plus a column) and its halves; then ``corners``, ``cells_until`` and ``fronts_until``.
    """
    capacity = _cells_along(depth) * _cells_along(lateral)
    rectangles = np.empty((capacity, 4), np.int64)
    cuts = np.empty(capacity, np.int64)
    children = np.full((capacity, 2), -1, np.int64)
    corners = np.empty((capacity, 2), np.int64)
    cells_until = np.empty(capacity, np.int64)
    fronts_until = np.empty(capacity, np.int64)
    fronts = cells = batches = 0

    # Depth first. An entry of the stack is a rectangle, its state (0: to be entered; 1, 2: that many halves are done),
    # its cutting line, the results of its halves, and whether it lies within a batch.
    stack = np.empty((2 * 64, 9), np.int64)
    stack[0] = np.array([0, depth, 0, lateral, 0, 0, -1, -1, 0])
    size = 1
    result = -1
    while size > 0:
        entry = stack[size - 1]
        top, bottom, left, right, state = entry[0], entry[1], entry[2], entry[3], entry[4]
        if state == 0:
            high, wide = bottom - top, right - left
            if high <= 0 or wide <= 0:
                result = -1
                size -= 1
                continue
            if entry[8] == 0 and _cells_along(high) * _cells_along(wide) <= LANES:
                # The cells of this rectangle make a batch. Fronts finished since the last batch belong to that one.
                if batches > 0:
                    fronts_until[batches - 1] = fronts
                batches += 1
                cells_until[batches - 1] = cells
                entry[8] = 1
            if high <= CELL and wide <= CELL:
                corners[cells, 0] = top
                corners[cells, 1] = left
                first = cells_until[batches - 2] if batches > 1 else 0
                result = -2 - (cells - first)
                cells += 1
                cells_until[batches - 1] = cells
                size -= 1
                continue
            if high >= wide:
                entry[5] = top + PITCH * _first_half(_cells_along(high)) - 1
            else:
                entry[5] = depth + left + PITCH * _first_half(_cells_along(wide)) - 1
        else:
            entry[5 + state] = result
        if state < 2:
            entry[4] = state + 1
            half = stack[size]
            half[:4] = entry[:4]
            half[4] = 0
            half[8] = entry[8]
            if entry[5] < depth:
                half[1 - state] = entry[5] + state
            else:
                half[3 - state] = entry[5] - depth + state
            size += 1
        else:
            rectangles[fronts] = entry[:4]
            cuts[fronts] = entry[5]
            children[fronts] = entry[6:8]
            result = fronts
            fronts += 1
            size -= 1
    fronts_until[batches - 1] = fronts
    return (
        rectangles[:fronts].copy(),
        cuts[:fronts].copy(),
        children[:fronts].copy(),
        corners[:cells].copy(),
        cells_until[:batches].copy(),
        fronts_until[:batches].copy(),
    )


@njit(cache=True, nogil=True)
def _line(rectangle: Integers, cut: int, depth: int) -> tuple[int, int, int, int]:
    """Give the cutting line as a rectangle."""
    top, bottom, left, right = rectangle
    if cut < depth:
        return cut, cut + 1, left, right
    return top, bottom, cut - depth, cut - depth + 1


@njit(cache=True, nogil=True)
def _rank(rectangles: Integers, cuts: Integers, depth: int, lateral: int) -> Integers:
    """Number the pixels of cutting lines in the order of their elimination; those of cells have -1."""
    rank = np.full(depth * lateral, -1, np.int32)
    count = 0
    for front in range(len(rectangles)):
        top, bottom, left, right = _line(rectangles[front], cuts[front], depth)
        for row in range(top, bottom):
            for column in range(left, right):
                rank[row * lateral + column] = count
                count += 1
    return rank


@njit(cache=True, nogil=True)
def _fronts(
    rectangles: Integers, cuts: Integers, rank: Integers, depth: int, lateral: int
) -> tuple[Integers, Integers, Integers]:
    """List the pixels of every front, pivots first, then the ring, each in the order of elimination."""
    fronts = len(rectangles)
    start = np.zeros(fronts + 1, np.int64)
    pivots = np.empty(fronts, np.int64)
    for front in range(fronts):
        top, bottom, left, right = rectangles[front]
        high = min(bottom + 1, depth) - max(top - 1, 0)
        wide = min(right + 1, lateral) - max(left - 1, 0)
        ring = high * wide - (bottom - top) * (right - left)
        top, bottom, left, right = _line(rectangles[front], cuts[front], depth)
        pivots[front] = (bottom - top) * (right - left)
        start[front + 1] = start[front] + pivots[front] + ring
    by_rank = np.empty(rank.max() + 1, np.int32)
    for pixel in range(depth * lateral):
        if rank[pixel] >= 0:
            by_rank[rank[pixel]] = pixel

    nodes = np.empty(start[-1], np.int32)
    for front in range(fronts):
        position = start[front]
        top, bottom, left, right = _line(rectangles[front], cuts[front], depth)
        for row in range(top, bottom):
            for column in range(left, right):
                nodes[position] = row * lateral + column
                position += 1
        ring_start = position
        top, bottom, left, right = rectangles[front]
        for row in range(max(top - 1, 0), min(bottom + 1, depth)):
            if top <= row < bottom:
                if left > 0:
                    nodes[position] = rank[row * lateral + left - 1]
                    position += 1
                if right < lateral:
                    nodes[position] = rank[row * lateral + right]
                    position += 1
            else:
                for column in range(max(left - 1, 0), min(right + 1, lateral)):
                    nodes[position] = rank[row * lateral + column]
                    position += 1
        ranks = np.sort(nodes[ring_start:position])
        for index in range(len(ranks)):
            nodes[ring_start + index] = by_rank[ranks[index]]
    return nodes, start, pivots


@njit(cache=True, nogil=True)
def _peak(sizes: Integers, children: Integers) -> int:
    """Find how much a stack holds at most when every front replaces its children's entries by its own."""
    held = 0
    peak = 0
    for front in range(len(sizes)):
        for half in range(2):
            if children[front, half] >= 0:
                held -= sizes[children[front, half]]
        held += sizes[front]
        peak = max(peak, held)
    return peak
