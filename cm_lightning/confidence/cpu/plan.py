"""Order and indices of the elimination of a large frame.

The frame is dissected into cells of up to 31 x 31 pixels, which are eliminated LANES at a time, and the lines between
them, whose fronts are dense (see :mod:`cm_lightning.confidence.tree`). Below the upper levels of the tree, there
are up to four subtrees (parts), which can be eliminated at the same time. They are followed by the fronts of the upper
levels, level by level. The parts and the order of all operations do not depend on the number of threads, and nor do the
results.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.vectors import LANES
from cm_lightning.confidence.tree import Integers, NodePixels, Tree, append_runs, grow_tree, list_pixels

# Maximum side length of a cell in pixels.
CELL = 31
# Number of pixels around a cell.
CELL_RING = 4 * CELL + 4
# Maximum number of upper levels of the tree, which are eliminated after the parts, maximum number of parts, and minimum
# number of cells of a node of the upper levels.
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
        pixels: Pixels of all fronts, as row-major indices; see :class:`cm_lightning.confidence.tree.NodePixels`.
        start: Index in ``pixels`` of the first pixel of each front, followed by the length of ``pixels``, ``(fronts +
            1,)``.
        pivots: Number of pivots of each front, ``(fronts,)``.
        halves: Front of each half, ``-2 - slot`` for a cell, or -1 for an empty half, ``(fronts, 2)``. Slots are the
            positions in the updates of the last two batches of cells.
        run_start: Index in ``runs`` of the first run of each half (two per front), followed by the length of ``runs``,
            ``(2 * fronts + 1,)``.
        runs: Runs of values that are added to a front: index in the ring of the half, index in the front, length,
            ``(runs, 3)``.
        factor_start: First value of each front in the factor, followed by the number of values, ``(fronts + 1,)``.
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
        levels: Fronts of the upper levels of the tree, in the order in which the levels are eliminated; fronts of the
            same level are independent.
        largest: Number of pixels of the largest front.
        stack_size: Maximum number of values of updates of a part that are stored at the same time.
    """

    shape: tuple[int, int]
    plan: Plan
    roots: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    largest: int
    stack_size: int

    @property
    def upper_fronts(self) -> tuple[int, ...]:
        """Fronts of all upper levels, in the order of their elimination."""
        return tuple(front for level in self.levels for front in level)

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
    all_pixels = list_pixels(tree, depth, lateral)
    start = np.concatenate([[0], np.cumsum(np.diff(all_pixels.start)[nodes])])
    pixels, halves, runs, run_start = _indices(tree, all_pixels, fronts, nodes, start, corners, batches, depth, lateral)
    pivots = all_pixels.pivots[nodes]
    ring = np.diff(start) - pivots
    upper = [[int(fronts[node]) for node in np.flatnonzero(level == number)] for number in range(MAX_LEVELS)]
    plan = Plan(
        corners=corners,
        batches=batches,
        parts=parts,
        pixels=pixels,
        start=start,
        pivots=pivots,
        halves=halves,
        run_start=run_start,
        runs=runs.copy(),
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
    """Return the level of the nodes of the upper levels, 0 for the root, and -1 for all other nodes."""
    level = np.full(len(tree.leaves), -1)
    nodes = [len(level) - 1]
    for depth in range(MAX_LEVELS):
        nodes = [node for node in nodes if tree.leaves[node] >= MIN_CELLS and (tree.halves[node] >= 0).all()]
        level[nodes] = depth
        nodes = [int(half) for node in nodes for half in tree.halves[node]]
    return level


def _number(tree: Tree, level: Integers) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Number cells and fronts, and divide them into batches and parts.

    Returns:
        ``corners``, ``batches`` and ``parts`` of the plan, the front of each node (its cell for a leaf), and the node
        of each front.
    """
    corners: list[tuple[int, int]] = []
    batches: list[list[int]] = []
    parts: list[list[int]] = []
    numbers: list[int] = []
    front_nodes: list[int] = []
    roots = {int(half) for halves in tree.halves[level >= 0] for half in halves if level[half] < 0}
    begins_part = True
    for node, (rectangle, halves) in enumerate(zip(tree.rectangles.tolist(), tree.halves.tolist(), strict=True)):
        if level[node] >= 0:
            numbers.append(len(front_nodes))
            front_nodes.append(node)
            continue
        if begins_part:
            parts.append([len(batches), 0, *rectangle])
        if halves == [-1, -1]:
            if begins_part or len(corners) - batches[-1][0] == LANES:
                batches.append([len(corners), 0, len(front_nodes), 0])
            numbers.append(len(corners))
            corners.append((rectangle[0], rectangle[2]))
            batches[-1][1] = len(corners)
        else:
            numbers.append(len(front_nodes))
            front_nodes.append(node)
        batches[-1][3] = len(front_nodes)
        parts[-1][1:] = [len(batches), *rectangle]
        begins_part = node in roots
    corner_table, batch_table, part_table = (np.array(table, np.int64) for table in (corners, batches, parts))
    return corner_table, batch_table, part_table, np.array(numbers), np.array(front_nodes)


@njit(cache=True, nogil=True)
def _indices(
    tree: Tree,
    node_pixels: NodePixels,
    numbers: Integers,
    front_nodes: Integers,
    start: Integers,
    corners: Integers,
    batches: Integers,
    depth: int,
    lateral: int,
) -> tuple[Integers, Integers, Integers, Integers]:
    """Return the pixels, halves and runs of all fronts."""
    fronts = len(front_nodes)
    slots = np.empty(len(corners), np.int64)
    for batch in range(len(batches)):
        for cell in range(batches[batch, 0], batches[batch, 1]):
            slots[cell] = batch % 2 * LANES + cell - batches[batch, 0]
    pixels = np.empty(start[fronts], np.int64)
    halves = np.empty((fronts, 2), np.int64)
    position = np.empty(depth * lateral + 1, np.int64)
    for pixel in range(len(position)):
        position[pixel] = -1
    runs = np.empty((2 * start[fronts], 3), np.int64)
    run_start = np.zeros(2 * fronts + 1, np.int64)
    cell_ring = np.empty(CELL_RING, np.int64)
    count = 0
    for front in range(fronts):
        first_pixel = node_pixels.start[front_nodes[front]]
        for index in range(start[front + 1] - start[front]):
            pixel = node_pixels.pixels[first_pixel + index]
            pixels[start[front] + index] = pixel
            position[pixel] = index
        for half in range(2):
            child = tree.halves[front_nodes[front], half]
            first = count
            if child < 0:
                halves[front, half] = -1
            elif tree.halves[child, 0] < 0 and tree.halves[child, 1] < 0:
                cell = numbers[child]
                halves[front, half] = -2 - slots[cell]
                ring_of_cell(corners[cell, 0], corners[cell, 1], depth, lateral, cell_ring)
                for index in range(CELL_RING):
                    if cell_ring[index] < 0:  # Pixels outside the frame are not in any front.
                        cell_ring[index] = depth * lateral
                count = append_runs(cell_ring, position, -1, runs, count)
                _sort_runs(runs, first, count)
            else:
                halves[front, half] = numbers[child]
                ring_start = node_pixels.start[child] + node_pixels.pivots[child]
                ring = node_pixels.pixels[ring_start : node_pixels.start[child + 1]]
                count = append_runs(ring, position, -1, runs, count)
            run_start[2 * front + half + 1] = count
        for index in range(start[front], start[front + 1]):
            position[pixels[index]] = -1
    return pixels, halves, runs[:count], run_start


@njit(cache=True, nogil=True)
def _sort_runs(runs: Integers, first: int, end: int) -> None:
    """Sort some runs by their index in the front."""
    for last in range(first + 1, end):
        for index in range(last, first, -1):
            if runs[index, 1] < runs[index - 1, 1]:
                for column in range(3):
                    runs[index, column], runs[index - 1, column] = runs[index - 1, column], runs[index, column]


@njit(cache=True, nogil=True)
def ring_of_cell(row: int, column: int, depth: int, lateral: int, pixels: Integers) -> None:
    """List the pixels around a cell.

    They are in the order of the margin of :func:`cm_lightning.confidence.tree.list_pixels`: the row above and the
    row below the cell (with corners), then the column to the left and the column to the right of it.

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
