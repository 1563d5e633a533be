"""Schedule of the elimination on a GPU: fronts level by level, with precomputed indices."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cuda.dissection import Dissection, dissect
from cm_lightning.confidence.cuda.pattern import RING, ring_pixels

# These must equal the constants in kernels.cu: number of pivots that are eliminated together, side length of an updated
# tile, rows per block in the assembly, and columns of the table of fronts.
PANEL = 32
TILE = 64
ASSEMBLED_ROWS = 16
START, PIVOTS, SIZE, STRIDE, WORK, FACTOR_START, FIRST, SECOND = range(8)


@dataclass(frozen=True, eq=False)
class Level:
    """Fronts at one depth of the tree of the dissection, which are eliminated together.

    Attributes:
        fronts: Indices of the fronts, int32, ``(fronts,)``.
        largest: Number of pixels of the largest front.
        remaining: For each panel of PANEL pivots, the maximum number of pixels of a front after these pivots.
        work_size: Number of values of their weights.
    """

    fronts: NDArray[np.int32]
    largest: int
    remaining: tuple[int, ...]
    work_size: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """Elimination of a grid level by level.

    Attributes:
        shape: Shape of the grid, ``(depth, lateral)``.
        corners: First row and column of every cell, int32, ``(cells, 2)``.
        fronts: Table of fronts with the columns above, int64, ``(fronts, 8)``.
        nodes: Pixels of every front, as in :class:`cm_lightning.confidence.cuda.dissection.Dissection`.
        in_first: Index of each of these pixels in the first half of the rectangle (in its front, or in the ring of its
            cell); -1 if it is not in this half.
        in_second: Index of each of these pixels in the second half.
        levels: Levels, the deepest first.
        factor_size: Number of values of all fronts in the factor.
        work_sizes: Maximum number of values of the weights of a level, for the deepest and every other level, and for
            all other levels. Weights of a level are needed until the next level is assembled.
    """

    shape: tuple[int, int]
    corners: NDArray[np.int32]
    fronts: NDArray[np.int64]
    nodes: NDArray[np.int32]
    in_first: NDArray[np.int32]
    in_second: NDArray[np.int32]
    levels: tuple[Level, ...]
    factor_size: int
    work_sizes: tuple[int, int]


@lru_cache(maxsize=16)
def schedule(depth: int, lateral: int) -> Schedule:
    """Determine the schedule of a grid. Schedules of the last 16 shapes are cached.

    Args:
        depth: Number of rows, at least 1.
        lateral: Number of columns, at least 1.

    Returns:
        The schedule.
    """
    dissection = dissect(depth, lateral)
    children = _children(dissection)
    fronts = np.zeros((len(dissection.pivots), 8), np.int64)
    fronts[:, START] = dissection.start[:-1]
    fronts[:, PIVOTS] = dissection.pivots
    fronts[:, SIZE] = np.diff(dissection.start)
    fronts[:, STRIDE] = (fronts[:, SIZE] + 8) // 8 * 8  # with the slack, and rows aligned to 32 bytes
    factor_start = np.concatenate([[0], np.cumsum(fronts[:, PIVOTS] * fronts[:, STRIDE])])
    fronts[:, FACTOR_START] = factor_start[:-1]
    fronts[:, FIRST:] = children

    tree_depth = _tree_depth(children)
    levels = []
    for number in range(tree_depth.max(initial=-1), -1, -1):
        members = np.flatnonzero(tree_depth == number)
        work_start = np.concatenate([[0], np.cumsum(fronts[members, SIZE] * fronts[members, STRIDE])])
        fronts[members, WORK] = work_start[:-1]
        levels.append(
            Level(
                fronts=members.astype(np.int32),
                largest=int(fronts[members, SIZE].max()),
                remaining=_most_remaining(fronts[members, PIVOTS], fronts[members, SIZE]),
                work_size=int(work_start[-1]),
            )
        )
    in_first, in_second = _places(
        dissection.nodes,
        fronts,
        dissection.corners,
        depth,
        lateral,
    )
    return Schedule(
        shape=(depth, lateral),
        corners=dissection.corners.astype(np.int32),
        fronts=fronts,
        nodes=dissection.nodes,
        in_first=in_first,
        in_second=in_second,
        levels=tuple(levels),
        factor_size=int(factor_start[-1]),
        work_sizes=(
            max((level.work_size for level in levels[::2]), default=0),
            max((level.work_size for level in levels[1::2]), default=0),
        ),
    )


def _children(dissection: Dissection) -> NDArray[np.int64]:
    """Return the halves of all fronts, with ``-2 - cell`` for a cell, where ``cell`` is its index in the grid."""
    children = dissection.children.copy()
    batch = np.searchsorted(dissection.fronts_until, np.arange(len(children)), side="right")
    first_cell = np.concatenate([[0], dissection.cells_until])[batch]
    return np.where(children <= -2, children - first_cell[:, None], children)


def _tree_depth(children: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance of every front from the root. Children precede their parent."""
    distance = np.zeros(len(children), np.int64)
    for front in range(len(children) - 1, -1, -1):
        for child in children[front]:
            if child >= 0:
                distance[child] = distance[front] + 1
    return distance


def _most_remaining(pivots: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the maximum number of pixels of a front after the pivots of each panel."""
    remaining = []
    for begin in range(0, int(pivots.max()), PANEL):
        reached = pivots > begin
        remaining.append(int((sizes - np.minimum(pivots, begin + PANEL))[reached].max()))
    return tuple(remaining)


@njit(cache=True, nogil=True)
def _places(
    nodes: NDArray[np.int32], fronts: NDArray[np.int64], corners: NDArray[np.int64], depth: int, lateral: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the indices of the pixels of every front in its halves."""
    places = np.full((2, len(nodes)), -1, np.int32)
    position = np.full(depth * lateral, -1, np.int32)
    ring = np.empty(RING, np.int64)
    for front in range(len(fronts)):
        start, size = fronts[front, START], fronts[front, SIZE]
        for index in range(start, start + size):
            position[nodes[index]] = index
        for half in range(2):
            child = fronts[front, FIRST + half]
            if child >= 0:
                child_start = fronts[child, START]
                for place in range(fronts[child, PIVOTS], fronts[child, SIZE]):
                    places[half, position[nodes[child_start + place]]] = place
            elif child <= -2:
                ring_pixels(corners[-2 - child, 0], corners[-2 - child, 1], depth, lateral, ring)
                for place in range(RING):
                    if ring[place] >= 0:
                        places[half, position[ring[place]]] = place
        for index in range(start, start + size):
            position[nodes[index]] = -1
    return places[0], places[1]
