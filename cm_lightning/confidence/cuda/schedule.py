"""Schedule of the elimination on a GPU: fronts level by level, with precomputed indices.

The elimination processes all fronts at one depth of the tree of the dissection together, which are independent. Forward
and backward substitution need fewer launches of kernels: each block processes a group of fronts, which is a subtree.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cuda.dissection import Dissection, dissect
from cm_lightning.confidence.cuda.pattern import RING, ring_pixels

# These must equal the constants in kernels.cu: number of pivots that are eliminated together, number of rows that a
# thread computes at once, side length of an updated tile, rows per block in the assembly, and columns of the table of
# fronts.
PANEL = 32
ROWS = 8
TILE = 64
ASSEMBLED_ROWS = 16
START, PIVOTS, SIZE, STRIDE, WORK, FACTOR_START, FIRST, SECOND = range(8)

# Maximum shared memory of small fronts. Every GPU has 48 KB per block, of which a little is used otherwise.
SHARED_BYTES = 47 * 1024
# If there are at most this many fronts, they are one group in the substitution. Since a block is then alone with a
# frame, this is only faster if the time to launch kernels dominates.
FRONTS_OF_SMALL_GRIDS = 300
# Maximum number of fronts of the groups of larger grids.
FRONTS_OF_GROUPS = 32
# Number of warps of 32 threads for such groups.
WARPS_OF_SMALL_GRIDS, WARPS_OF_GROUPS = 32, 8


class Stage(NamedTuple):
    """Groups of fronts that are independent in the substitution, after those of earlier stages.

    Attributes:
        groups: First step of each group, followed by the end of the steps, int32, ``(groups + 1,)``.
        steps: First and end of the fronts of each step in the order of the substitution, the maximum number of their
            panels, and the maximum number of strips of 32 pixels, int32, ``(steps, 4)``. Fronts of a step are
            independent.
        warps: Number of warps per group.
    """

    groups: NDArray[np.int32]
    steps: NDArray[np.int32]
    warps: int


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
    levels: list[NDArray[np.int32]] = []
    work_sizes = [0, 0]
    for number in range(tree_depth.max(initial=-1), -1, -1):
        members = np.flatnonzero(tree_depth == number)
        work_start = np.concatenate([[0], np.cumsum(fronts[members, SIZE] * fronts[members, STRIDE])])
        fronts[members, WORK] = work_start[:-1]
        work_sizes[len(levels) % 2] = max(work_sizes[len(levels) % 2], int(work_start[-1]))
        levels.append(members.astype(np.int32))
    order, stages = _stages(fronts, tree_depth)
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
        order=order,
        stages=stages,
        factor_size=int(factor_start[-1]),
        work_sizes=(work_sizes[0], work_sizes[1]),
    )


def shared_values(pivots: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute the number of values of a panel in shared memory; see ``eliminate_fronts`` in kernels.cu.

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


def _stages(fronts: NDArray[np.int64], tree_depth: NDArray[np.int64]) -> tuple[NDArray[np.int32], tuple[Stage, ...]]:
    """Group the fronts for the substitution.

    Subtrees with few fronts are the groups of the first stage. The fronts above are groups of their own, in one stage
    per level.
    """
    if len(fronts) == 0:
        return np.empty(0, np.int32), ()
    small_grid = len(fronts) <= FRONTS_OF_SMALL_GRIDS
    limit = FRONTS_OF_SMALL_GRIDS if small_grid else FRONTS_OF_GROUPS
    subtree = np.ones(len(fronts), np.int64)  # number of fronts
    root = np.arange(len(fronts))  # of the group
    for front in range(len(fronts)):
        subtree[front] += sum(subtree[child] for child in fronts[front, FIRST:] if child >= 0)
    for front in range(len(fronts) - 1, -1, -1):
        if subtree[front] <= limit:
            for child in fronts[front, FIRST:]:
                if child >= 0:
                    root[child] = root[front]
    deepest = tree_depth.max() + 1
    stage = np.where(subtree <= limit, 0, deepest - tree_depth)
    order = np.lexsort((-tree_depth, root, stage))

    stages = []
    step = np.stack([stage, root, tree_depth], axis=1)[order]
    starts = np.flatnonzero(np.any(step != np.roll(step, 1, axis=0), axis=1) | (np.arange(len(step)) == 0))
    ends = np.append(starts[1:], len(order))
    panels = -(-fronts[order, PIVOTS] // PANEL)
    strips = -(-fronts[order, SIZE] // 32)
    steps = np.zeros((len(starts), 4), np.int32)
    for number, (begin, end) in enumerate(zip(starts, ends, strict=True)):
        steps[number] = begin, end, panels[begin:end].max(), strips[begin:end].max()
    for number in np.unique(stage):
        members = np.flatnonzero(step[starts, 0] == number)
        roots = step[starts[members], 1]
        groups = np.append(np.flatnonzero(np.diff(roots, prepend=-1)), len(members))
        stages.append(
            Stage(groups.astype(np.int32), steps[members], WARPS_OF_SMALL_GRIDS if small_grid else WARPS_OF_GROUPS)
        )
    return order.astype(np.int32), tuple(stages)


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
