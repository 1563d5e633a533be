"""Schedule of the elimination on a GPU: fronts level by level, with precomputed indices.

The tree is that of :mod:`cm_lightning.confidence.tree`, with cells of 7 x 7 pixels as leaves: every eighth row and
column is a line of pivots. All cells have the same structure; those at the lower and right border only have fewer
pixels. All other nodes have dense fronts, and those at one depth of the tree are eliminated together.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cuda.pattern import CELL, RING, ring_pixels
from cm_lightning.confidence.cuda.stages import Stage, group_fronts
from cm_lightning.confidence.tree import grow_tree, list_pixels

# Number of cells that a block of threads processes, each by one warp of 32 threads.
CELLS_PER_BLOCK = 4
# Number of pivots of a front that are eliminated together, and number of rows that a thread computes at once.
PANEL = 32
ROWS = 8
# Side length of a tile of weights that one block updates, and number of rows that one block assembles, in large fronts.
TILE = 64
ASSEMBLED_ROWS = 16
# Columns of the table of fronts, which must equal those in factor.cu.
START, PIVOTS, SIZE, STRIDE, WORK, FACTOR_START, FIRST, SECOND = range(8)

# Maximum shared memory of small fronts. Every GPU has 48 KB per block, of which a little is used otherwise.
SHARED_BYTES = 47 * 1024


@dataclass(frozen=True, eq=False)
class Schedule:
    """Elimination of a grid level by level.

    Attributes:
        shape: Shape of the grid, ``(depth, lateral)``.
        corners: First row and column of every cell, int32, ``(cells, 2)``.
        fronts: Table of fronts with the columns above, int64, ``(fronts, 8)``.
        nodes: Row-major indices of the pixels of all fronts, int32. Each front starts with its pivots, followed by its
            ring, both in the order of elimination.
        in_first: Index of each of these pixels in the first half of the rectangle (in its front, or in the ring of its
            cell); -1 if it is not in this half.
        in_second: Index of each of these pixels in the second half.
        levels: Indices of the fronts at each depth of the tree, int32, the deepest first.
        order: Indices of the fronts in the order of the substitution, int32, ``(fronts,)``.
        stages: Stages of the substitution.
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
    levels: tuple[NDArray[np.int32], ...]
    order: NDArray[np.int32]
    stages: tuple[Stage, ...]
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
    tree = grow_tree(0, depth, 0, lateral, CELL)
    pixels = list_pixels(tree, depth, lateral)
    cell = (tree.halves < 0).all(axis=1)
    corners = tree.rectangles[cell][:, [0, 2]]
    sizes = np.diff(pixels.start)
    nodes = pixels.pixels[np.repeat(~cell, sizes)].astype(np.int32)
    # Numbers of fronts, and -2 - cell for cells.
    number = np.where(cell, -1 - np.cumsum(cell), np.cumsum(~cell) - 1)
    children = np.where(tree.halves >= 0, number[tree.halves], -1)[~cell]

    fronts = np.zeros((len(children), 8), np.int64)
    fronts[:, PIVOTS] = pixels.pivots[~cell]
    fronts[:, SIZE] = sizes[~cell]
    fronts[:, START] = np.cumsum(fronts[:, SIZE]) - fronts[:, SIZE]
    fronts[:, STRIDE] = (fronts[:, SIZE] + 8) // 8 * 8  # with the slack, and rows aligned to 32 bytes
    factor_sizes = fronts[:, PIVOTS] * fronts[:, STRIDE]
    fronts[:, FACTOR_START] = np.cumsum(factor_sizes) - factor_sizes
    fronts[:, FIRST:] = children

    tree_depth = _tree_depth(children)
    levels: list[NDArray[np.int32]] = []
    work_sizes = [0, 0]
    for level in range(tree_depth.max(initial=-1), -1, -1):
        members = np.flatnonzero(tree_depth == level)
        work_start = np.concatenate([[0], np.cumsum(fronts[members, SIZE] * fronts[members, STRIDE])])
        fronts[members, WORK] = work_start[:-1]
        work_sizes[len(levels) % 2] = max(work_sizes[len(levels) % 2], int(work_start[-1]))
        levels.append(members.astype(np.int32))
    order, stages = group_fronts(children, tree_depth, -(-fronts[:, PIVOTS] // PANEL), -(-fronts[:, SIZE] // 32))
    in_first, in_second = _places(nodes, fronts, corners, depth, lateral)
    return Schedule(
        shape=(depth, lateral),
        corners=np.ascontiguousarray(corners, np.int32),
        fronts=fronts,
        nodes=nodes,
        in_first=in_first,
        in_second=in_second,
        levels=tuple(levels),
        order=order,
        stages=stages,
        factor_size=int(factor_sizes.sum()),
        work_sizes=(work_sizes[0], work_sizes[1]),
    )


def shared_values(pivots: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute the number of values of a panel in shared memory; see ``eliminate_fronts`` in factor.cu.

    Args:
        pivots: Numbers of pivots of fronts.
        sizes: Numbers of pixels of fronts.

    Returns:
        Numbers of values.
    """
    count = np.minimum(pivots, PANEL)
    rows = -(-count // ROWS) * ROWS
    return rows * ((rows + sizes - count + 1 + 7) // 16 * 16 + 8)


def most_remaining(pivots: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[int, ...]:
    """Compute the maximum number of pixels of a front after the pivots of each panel.

    Args:
        pivots: Numbers of pivots of fronts.
        sizes: Numbers of pixels of fronts.

    Returns:
        Maximum number for each panel.
    """
    remaining = []
    for begin in range(0, int(pivots.max()), PANEL):
        reached = pivots > begin
        remaining.append(int((sizes - np.minimum(pivots, begin + PANEL))[reached].max()))
    return tuple(remaining)


def _tree_depth(children: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance of every front from the root. Children precede their parent."""
    distance = np.zeros(len(children), np.int64)
    for front in range(len(children) - 1, -1, -1):
        for child in children[front]:
            if child >= 0:
                distance[child] = distance[front] + 1
    return distance


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
