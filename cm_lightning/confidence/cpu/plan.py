"""Order and indices of the elimination of a large frame.

The frame is dissected into cells of up to 31 x 31 pixels, which are eliminated LANES at a time, and the lines between
them, whose fronts are dense. The upper levels of the tree are cut off, so that there are up to four subtrees (parts),
which can be eliminated at the same time, followed by the fronts of the upper levels, level by level. The parts and the
order of all operations do not depend on the number of threads, and nor do the results.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.tree import Integers, Tree, append_runs, grow_tree, list_pixels
from cm_lightning.confidence.cpu.vectors import LANES

# Maximum side length of a cell in pixels.
CELL = 31
# Number of pixels around a cell.
CELL_RING = 4 * CELL + 4
# Maximum number of levels that are cut off, and minimum number of cells of a rectangle that is cut.
MAX_LEVELS = 2
MAX_PARTS = 2**MAX_LEVELS
MIN_CELLS = 3 * LANES


class Plan(NamedTuple):
    """Elimination of a frame, for use in compiled code.

    Attributes:
        corners: First row and column of every cell, ``(cells, 2)``.
        batches: First and end cell of every batch of cells, and first and end front that are eliminated after it,
            ``(batches, 4)``.
        parts: First and end batch of every part, and its rectangle (first row, end row, first column, end column),
            ``(parts, 6)``.
        pixels: Pixels of all fronts, as row-major indices; see :class:`cm_lightning.confidence.cpu.tree.NodePixels`.
        start: First pixel of each front in ``pixels``, and their number, ``(fronts + 1,)``.
        pivots: Number of pivots of each front, ``(fronts,)``.
        halves: Front of each half, ``-2 - slot`` for a cell, or -1 for an empty half, ``(fronts, 2)``. Slots are the
            positions in the updates of the last two batches of cells.
        run_start: First run of each half (two per front), and their number, ``(2 * fronts + 1,)``.
        runs: Runs of values that are added to a front: index in the ring of the half, index in the front, length,
            ``(runs, 3)``.
        factor_start: First value of each front in the factor, and their number, ``(fronts + 1,)``.
    """

    corners: NDArray[np.int64]
    batches: NDArray[np.int64]
    parts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    start: NDArray[np.int64]
    pivots: NDArray[np.int64]
    halves: NDArray[np.int64]
    run_start: NDArray[np.int64]
    runs: NDArray[np.int64]
    factor_start: NDArray[np.int64]


class Layout(NamedTuple):
    """Plan of a frame, and what is needed to run it on several threads.

    Attributes:
        shape: Shape of the frame, ``(depth, lateral)``.
        plan: The plan.
        roots: Last front of every part; its update is needed by the upper levels.
        levels: Fronts of the upper levels, those that are eliminated first at the beginning; fronts of the same level
            are independent.
        largest: Number of pixels of the largest front.
        stack_size: Maximum number of values of updates of a part that are stored at the same time.
    """

    shape: tuple[int, int]
    plan: Plan
    roots: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    largest: int
    stack_size: int

    def ring(self, front: int) -> int:
        """Return the number of pixels of the ring of a front."""
        return int(self.plan.start[front + 1] - self.plan.start[front] - self.plan.pivots[front])


@lru_cache(maxsize=16)
def make_layout(depth: int, lateral: int) -> Layout:
    """Determine the elimination of a frame with more than one cell. The last 16 layouts are cached.

    Args:
        depth: Number of rows.
        lateral: Number of columns.

    Returns:
        The layout.
    """
    tree = grow_tree(0, depth, 0, lateral, CELL)
    level = _upper_levels(tree)
    corners, batches, parts, fronts, nodes = _number(tree, level)
    pixels, start, pivots, halves, runs, run_start = _indices(tree, fronts, nodes, corners, batches, depth, lateral)
    ring = np.diff(start) - pivots
    upper = [[int(fronts[node]) for node in np.flatnonzero(level == depth)] for depth in range(MAX_LEVELS)]
    plan = Plan(
        corners=corners,
        batches=batches,
        parts=parts,
        pixels=pixels,
        start=start,
        pivots=pivots,
        halves=halves,
        run_start=run_start,
        runs=runs,
        factor_start=np.concatenate([[0], np.cumsum(pivots * (pivots - 1) // 2 + pivots * ring)]),
    )
    return Layout(
        shape=(depth, lateral),
        plan=plan,
        roots=tuple(int(batches[end - 1, 3]) - 1 for end in parts[:, 1]),
        levels=tuple(tuple(members) for members in reversed(upper) if members),
        largest=int(np.diff(start).max()),
        stack_size=_stack_size(ring * (ring + 1), plan),
    )


def _upper_levels(tree: Tree) -> Integers:
    """Return the level of the nodes that are cut off, 0 for the root, and -1 for all other nodes."""
    level = np.full(len(tree.leaves), -1)
    nodes = [len(level) - 1]
    for depth in range(MAX_LEVELS):
        nodes = [node for node in nodes if tree.leaves[node] >= MIN_CELLS and (tree.halves[node] >= 0).all()]
        level[nodes] = depth
        nodes = [int(half) for node in nodes for half in tree.halves[node]]
    return level


@njit(cache=True, nogil=True)
def _number(tree: Tree, level: Integers) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Number cells and fronts, and divide them into batches and parts.

    Returns:
        ``corners``, ``batches`` and ``parts`` of the plan, the front of each node (its cell for a leaf), and the node of
        each front.
    """
    nodes = len(tree.leaves)
    corners = np.empty((tree.leaves[-1], 2), np.int64)
    batches = np.empty((tree.leaves[-1], 4), np.int64)
    parts = np.empty((tree.leaves[-1], 6), np.int64)
    numbers = np.empty(nodes, np.int64)
    front_nodes = np.empty(nodes, np.int64)
    cells = fronts = batch_count = part_count = 0
    in_part = False
    for node in range(nodes):
        if level[node] >= 0:
            in_part = False
        elif not in_part:
            in_part = True
            parts[part_count, 0] = batch_count
            part_count += 1
        if tree.leaves[node] == 1 and tree.halves[node, 0] < 0 and tree.halves[node, 1] < 0:
            first = parts[part_count - 1, 0]
            if batch_count == first or cells - batches[batch_count - 1, 0] == LANES:
                batches[batch_count, 0] = cells
                batches[batch_count, 2] = fronts
                batch_count += 1
            corners[cells, 0] = tree.rectangles[node, 0]
            corners[cells, 1] = tree.rectangles[node, 2]
            numbers[node] = cells
            cells += 1
            batches[batch_count - 1, 1] = cells
        else:
            front_nodes[fronts] = node
            numbers[node] = fronts
            fronts += 1
        if level[node] < 0:
            batches[batch_count - 1, 3] = fronts
            parts[part_count - 1, 1] = batch_count
            parts[part_count - 1, 2:] = tree.rectangles[node]
            # A part ends where its parent, or its parent's other half, begins.
            if node + 1 < nodes and _is_half_of_upper(tree, level, node):
                in_part = False
    return (
        corners,
        batches[:batch_count].copy(),
        parts[:part_count].copy(),
        numbers,
        front_nodes[:fronts].copy(),
    )


@njit(cache=True, nogil=True)
def _is_half_of_upper(tree: Tree, level: Integers, node: int) -> bool:
    """Return whether the parent of a node is cut off."""
    for upper in range(len(level)):
        if level[upper] >= 0 and (tree.halves[upper, 0] == node or tree.halves[upper, 1] == node):
            return True
    return False


@njit(cache=True, nogil=True)
def _indices(
    tree: Tree, numbers: Integers, front_nodes: Integers, corners: Integers, batches: Integers, depth: int, lateral: int
) -> tuple[Integers, Integers, Integers, Integers, Integers, Integers]:
    """Return the pixels, halves and runs of all fronts."""
    all_pixels, all_start, all_pivots = list_pixels(tree, depth, lateral)
    fronts = len(front_nodes)
    slots = np.empty(len(corners), np.int64)
    for batch in range(len(batches)):
        for cell in range(batches[batch, 0], batches[batch, 1]):
            slots[cell] = batch % 2 * LANES + cell - batches[batch, 0]
    start = np.zeros(fronts + 1, np.int64)
    for front in range(fronts):
        node = front_nodes[front]
        start[front + 1] = start[front] + all_start[node + 1] - all_start[node]
    pixels = np.empty(start[-1], np.int64)
    pivots = np.empty(fronts, np.int64)
    halves = np.full((fronts, 2), -1, np.int64)
    position = np.full(depth * lateral, -1, np.int64)
    runs = np.empty((2 * start[-1] + 1, 3), np.int64)
    run_start = np.zeros(2 * fronts + 1, np.int64)
    cell_ring = np.empty(CELL_RING, np.int64)
    count = 0
    for front in range(fronts):
        node = front_nodes[front]
        own = pixels[start[front] : start[front + 1]]
        own[:] = all_pixels[all_start[node] : all_start[node + 1]]
        pivots[front] = all_pivots[node]
        for index in range(len(own)):
            position[own[index]] = index
        for half in range(2):
            child = tree.halves[node, half]
            first = count
            if child >= 0 and tree.halves[child, 0] < 0 and tree.halves[child, 1] < 0:
                cell = numbers[child]
                halves[front, half] = -2 - slots[cell]
                ring_of_cell(corners[cell, 0], corners[cell, 1], depth, lateral, cell_ring)
                # Pixels outside the frame are not in any front.
                position_of = np.full(CELL_RING, -1, np.int64)
                for index in range(CELL_RING):
                    if cell_ring[index] >= 0:
                        position_of[index] = position[cell_ring[index]]
                count = append_runs(np.arange(CELL_RING), position_of, -1, runs, count)
                _sort_runs(runs[first:count])
            elif child >= 0:
                halves[front, half] = numbers[child]
                ring = all_pixels[all_start[child] + all_pivots[child] : all_start[child + 1]]
                count = append_runs(ring, position, -1, runs, count)
            run_start[2 * front + half + 1] = count
        for index in range(len(own)):
            position[own[index]] = -1
    return pixels, start, pivots, halves, runs[:count].copy(), run_start


@njit(cache=True, nogil=True)
def _sort_runs(runs: Integers) -> None:
    """Sort runs by their index in the front."""
    for last in range(1, len(runs)):
        for index in range(last, 0, -1):
            if runs[index, 1] < runs[index - 1, 1]:
                for column in range(3):
                    runs[index, column], runs[index - 1, column] = runs[index - 1, column], runs[index, column]


@njit(cache=True, nogil=True)
def ring_of_cell(row: int, column: int, depth: int, lateral: int, pixels: Integers) -> None:
    """List the pixels around a cell in the order of its margin: above, below, to the left, to the right.

    Args:
        row: First row of the cell.
        column: First column of the cell.
        depth: Number of rows of the frame.
        lateral: Number of columns of the frame.
        pixels: Output, row-major indices of the pixels, -1 outside the frame, ``(CELL_RING,)``.
    """
    side = CELL + 2
    for index in range(CELL_RING):
        if index < 2 * side:
            r, c = row - 1 + index // side * (CELL + 1), column - 1 + index % side
        else:
            r, c = row + (index - 2 * side) % CELL, column - 1 + (index - 2 * side) // CELL * (CELL + 1)
        inside = r >= 0 and c >= 0 and r < depth and c < lateral
        pixels[index] = r * lateral + c if inside else -1


def _stack_size(sizes: Integers, plan: Plan) -> int:
    """Return the maximum size of the stack of a part. The update of its last front is stored elsewhere."""
    largest = 0
    for first_batch, end_batch, *_ in plan.parts:
        size = 0
        for front in range(plan.batches[first_batch, 2], plan.batches[end_batch - 1, 3] - 1):
            size += int(sizes[front]) - sum(int(sizes[half]) for half in plan.halves[front] if half >= 0)
            largest = max(largest, size)
    return largest
