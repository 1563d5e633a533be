"""What is eliminated when: the dissection's fronts level by level, with every look-up done beforehand."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.dissection import Dissection, dissect
from cm_lightning.confidence.pattern import RING, ring_pixels

# As in kernels.cu: pivots that are eliminated together, the side of an updated square, rows assembled by a block, and
# the fields of the table of fronts.
PANEL = 32
TILE = 64
ASSEMBLED_ROWS = 16
START, PIVOTS, SIZE, STRIDE, WORK, FACTOR_START, FIRST, SECOND = range(8)


@dataclass(frozen=True, eq=False)
class Level:
    """Fronts at one depth of the dissection's tree, which are eliminated together.

    Attributes:
        fronts: Their numbers, int32.
        largest: Pixels of the largest front.
        remaining: For each panel of PANEL pivots, the most pixels that a front has after those it eliminates there.
        work_size: Numbers that their weights take.
    """

    fronts: NDArray[np.int32]
    largest: int
    remaining: tuple[int, ...]
    work_size: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """The elimination of a grid in levels.

    Attributes:
        shape: ``(depth, lateral)``.
        corners: First row and column of every cell, int32, ``(cells, 2)``.
        fronts: For each front the fields named above, int64, ``(fronts, 8)``.
        nodes: Pixels of every front, as in :class:`cm_lightning.confidence.dissection.Dissection`.
        in_first: For each of these its place in the first half of the front's rectangle: its number in that front, or
            in that cell's ring; -1 where it is in neither.
        in_second: The same for the second half.
        levels: The deepest level first.
        factor_size: Numbers that the fronts' factor takes.
        work_sizes: Numbers that the weights of a level take at most, for every other level, from the deepest and from
            the second deepest on: a level's weights are needed until the next is assembled.
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
    """Plan the elimination of a ``depth`` x ``lateral`` grid on the GPU; plans of the last 16 shapes are kept.

    Args:
        depth: Rows, at least 1.
        lateral: Columns, at least 1.

    Returns:
        The plan.
    """
    dissection = dissect(depth, lateral)
    children = _children(dissection)
    fronts = np.zeros((len(dissection.pivots), 8), np.int64)
    fronts[:, START] = dissection.start[:-1]
    fronts[:, PIVOTS] = dissection.pivots
    fronts[:, SIZE] = np.diff(dissection.start)
    fronts[:, STRIDE] = (fronts[:, SIZE] + 8) // 8 * 8  # the slack, and rows that begin on multiples of 32 bytes
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
    """Number the cells among the fronts' halves within the grid, rather than within their batch: ``-2 - cell``."""
    children = dissection.children.copy()
    batch = np.searchsorted(dissection.fronts_until, np.arange(len(children)), side="right")
    first_cell = np.concatenate([[0], dissection.cells_until])[batch]
    return np.where(children <= -2, children - first_cell[:, None], children)


def _tree_depth(children: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give every front's distance from the root; children come before their parent."""
    distance = np.zeros(len(children), np.int64)
    for front in range(len(children) - 1, -1, -1):
        for child in children[front]:
            if child >= 0:
                distance[child] = distance[front] + 1
    return distance


def _most_remaining(pivots: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[int, ...]:
    """Find for each panel how many pixels a front has at most after the panel's pivots."""
    remaining = []
    for begin in range(0, int(pivots.max()), PANEL):
        reached = pivots > begin
        remaining.append(int((sizes - np.minimum(pivots, begin + PANEL))[reached].max()))
    return tuple(remaining)


@njit(cache=True, nogil=True)
def _places(
    nodes: NDArray[np.int32], fronts: NDArray[np.int64], corners: NDArray[np.int64], depth: int, lateral: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the place of every front's pixels in its halves."""
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
