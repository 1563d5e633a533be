"""Order of the elimination: nested dissection of a grid into cells of 7 x 7 pixels.

Every eighth row and column is a separator, which is one pixel wide. Since no edge of the 8-neighbour graph crosses a
separator, both sides of it can be eliminated independently before the separator itself. Recursive bisection of the grid
along separators results in a tree of rectangles, whose leaves are the cells. All cells have the same structure; those
at the lower and right border only have fewer pixels. Several cells are eliminated at once, followed by their separators
one by one.

A front consists of the pixels that are needed for the elimination of a separator: the pixels of the separator (pivots)
and the ring of pixels around the rectangle, which are eliminated later.

References:
    George, "Nested dissection of a regular finite element mesh", SIAM Journal on Numerical Analysis 1973.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[Any]

# Side length of a cell in pixels.
CELL = 7
# Distance between separators in pixels.
PITCH = CELL + 1
# Maximum number of cells per batch.
LANES = 8


class Dissection(NamedTuple):
    """Cells and fronts of a grid in the order of their elimination, for use in compiled code.

    The order is: the cells of batch 0, the fronts before ``fronts_until[0]``, the cells of batch 1, and so on. Batches
    are small subtrees.

    Attributes:
        shape: Shape of the grid, ``(depth, lateral)``.
        corners: First row and column of every cell, ``(cells, 2)``.
        cells_until: End of each batch in ``corners``, ``(batches,)``.
        fronts_until: End of the fronts that can be eliminated after each batch, ``(batches,)``.
        nodes: Row-major indices of the pixels of all fronts. Each front starts with its pivots, followed by its ring,
            both in the order of elimination.
        start: Index of the first pixel of each front in ``nodes``, and the total number, ``(fronts + 1,)``.
        pivots: Number of pivots of each front, ``(fronts,)``.
        children: The two halves of the rectangle of each front, ``(fronts, 2)``: the number of a front, ``-2 - lane``
            for a cell of the same batch, or -1 for an empty half.
    """

    shape: tuple[int, int]
    corners: NDArray[np.int64]
    cells_until: NDArray[np.int64]
    fronts_until: NDArray[np.int64]
    nodes: NDArray[np.int32]
    start: NDArray[np.int64]
    pivots: NDArray[np.int64]
    children: NDArray[np.int64]


@lru_cache(maxsize=16)
def dissect(depth: int, lateral: int) -> Dissection:
    """Compute the nested-dissection elimination order of the pixels of a grid; the last 16 shapes are cached.

    Args:
        depth: Number of rows, at least 1.
        lateral: Number of columns, at least 1.

    Returns:
        Cells and fronts in the order of their elimination.
    """
    rectangles, cuts, children, corners, cells_until, fronts_until = _cut(depth, lateral)
    rank = _rank(rectangles, cuts, depth, lateral)
    nodes, start, pivots = _fronts(rectangles, cuts, rank, depth, lateral)
    return Dissection(
        shape=(depth, lateral),
        corners=corners,
        cells_until=cells_until,
        fronts_until=fronts_until,
        nodes=nodes,
        start=start,
        pivots=pivots,
        children=children,
    )


@njit(cache=True, nogil=True)
def _cells_along(length: int) -> int:
    """Return the number of cells along a side, of which the last may be empty."""
    return length // PITCH + 1


@njit(cache=True, nogil=True)
def _first_half(cells: int) -> int:
    """Return the number of cells before a separator: half of them, or a power of two for few cells (full batches)."""
    if cells >= 8:
        return (cells + 1) // 2
    power = 1
    while 2 * power < cells:
        power *= 2
    return power


@njit(cache=True, nogil=True)
def _cut(depth: int, lateral: int) -> tuple[Integers, ...]:
    """Bisect the grid recursively into cells.

    Returns:
        Rectangles of all fronts (first row, end row, first column, end column), their separators (a row, or ``depth``
        plus a column) and their halves, followed by ``corners``, ``cells_until`` and ``fronts_until``.
    """
    capacity = _cells_along(depth) * _cells_along(lateral)
    rectangles = np.empty((capacity, 4), np.int64)
    cuts = np.empty(capacity, np.int64)
    children = np.full((capacity, 2), -1, np.int64)
    corners = np.empty((capacity, 2), np.int64)
    cells_until = np.empty(capacity, np.int64)
    fronts_until = np.empty(capacity, np.int64)
    fronts = cells = batches = 0

    # Depth-first search. An entry of the stack consists of a rectangle, its state (0: new; 1 or 2: number of finished
    # halves), its separator, the results of its halves, and whether it is inside a batch.
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
                # The cells of this rectangle form a batch. Fronts finished up to here belong to the previous batch.
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
    """Return a separator as a rectangle."""
    top, bottom, left, right = rectangle
    if cut < depth:
        return cut, cut + 1, left, right
    return top, bottom, cut - depth, cut - depth + 1


@njit(cache=True, nogil=True)
def _rank(rectangles: Integers, cuts: Integers, depth: int, lateral: int) -> Integers:
    """Return the positions of the pixels of separators in the order of elimination; -1 for pixels of cells."""
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
    """List the pixels of every front: its pivots and its ring, both in the order of elimination."""
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
