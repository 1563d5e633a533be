"""Grouping of the fronts in forward and backward substitution.

A kernel that processes one level of the tree would do little work compared with the time of its launch. Therefore, each
block of threads processes a group of fronts, which is a subtree.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# If there are at most this many fronts, they are one group. A block is then alone with a frame, which is faster because
# the time to launch kernels dominates.
FRONTS_OF_SMALL_GRIDS = 300
# Maximum number of fronts of the groups of larger grids.
FRONTS_OF_GROUPS = 40
# Number of warps of 32 threads for such groups.
WARPS_OF_SMALL_GRIDS, WARPS_OF_GROUPS = 32, 8


class Stage(NamedTuple):
    """Groups of fronts that are independent, after those of earlier stages.

    Attributes:
        groups: First step of each group, followed by the number of steps, int32, ``(groups + 1,)``.
        steps: First and end of the fronts of each step in the order of the substitution, the maximum number of their
            panels, and the maximum number of strips of their pixels, int32, ``(steps, 4)``. Fronts of a step are
            independent.
        warps: Number of warps per group.
    """

    groups: NDArray[np.int32]
    steps: NDArray[np.int32]
    warps: int


def group_fronts(
    children: NDArray[np.int64], tree_depth: NDArray[np.int64], panels: NDArray[np.int64], strips: NDArray[np.int64]
) -> tuple[NDArray[np.int32], tuple[Stage, ...]]:
    """Group the fronts of a grid.

    Subtrees with few fronts are the groups of the first stage. The fronts above are groups of their own, in one stage
    per level of the tree.

    Args:
        children: Both halves of each front, negative if they are not fronts, ``(fronts, 2)``. They precede the front.
        tree_depth: Distance of each front from the root.
        panels: Number of panels of each front.
        strips: Number of strips of pixels of each front.

    Returns:
        The order of the fronts in the forward substitution, and the stages.
    """
    if len(children) == 0:
        return np.empty(0, np.int32), ()
    small_grid = len(children) <= FRONTS_OF_SMALL_GRIDS
    limit, warps = FRONTS_OF_GROUPS, WARPS_OF_GROUPS
    if small_grid:
        limit, warps = FRONTS_OF_SMALL_GRIDS, WARPS_OF_SMALL_GRIDS
    in_subtree = np.ones(len(children), np.int64)
    for front, halves in enumerate(children):
        in_subtree[front] += in_subtree[halves[halves >= 0]].sum()
    root = np.arange(len(children))  # of the group
    for front in np.flatnonzero(in_subtree <= limit)[::-1]:
        halves = children[front]
        root[halves[halves >= 0]] = root[front]
    stage = np.where(in_subtree <= limit, 0, 1 + tree_depth.max() - tree_depth)
    order = np.lexsort((-tree_depth, root, stage))

    # Fronts of a step are in the same stage and group, and at the same depth.
    keys = np.stack([stage, root, tree_depth], axis=1)[order]
    begin = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=-1) != 0, axis=1))
    end = np.append(begin[1:], len(order))
    steps = np.stack([begin, end, np.maximum.reduceat(panels[order], begin), np.maximum.reduceat(strips[order], begin)])
    stages = []
    for number in np.unique(stage):
        members = keys[begin, 0] == number
        groups = np.flatnonzero(np.diff(keys[begin[members], 1], prepend=-1))
        stages.append(
            Stage(
                np.append(groups, members.sum()).astype(np.int32),
                np.ascontiguousarray(steps[:, members].T, np.int32),
                warps,
            )
        )
    return order.astype(np.int32), tuple(stages)
