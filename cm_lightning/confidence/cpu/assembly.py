"""Assembly of fronts from the weights of their pivots and the updates from the elimination of their halves."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.cells import FAST
from cm_lightning.confidence.cpu.memory import Workspace
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.pattern import FACTOR, INNER, PATTERN, RING, ring_pixels

Array = NDArray[Any]

RING_FIRST, RING_SECOND = PATTERN.ring_first, PATTERN.ring_second


@njit(cache=True, nogil=True, fastmath=FAST)
def assemble_front(
    graph: RandomWalkGraph,
    plan: Dissection,
    scale: float,
    front_index: int,
    nodes: Array,
    corners: Array,
    front: Array,
    top: int,
    depth: int,
    lateral: int,
    work: Workspace,
) -> int:
    """Compute a front as the sum of the weights of its pivots and the updates of its halves.

    Args:
        graph: Linear system of the frame.
        plan: Dissection of the grid.
        scale: Factor of all weights.
        front_index: Index of the front.
        nodes: Row-major indices of the pixels of the front, ``(size,)``.
        corners: First row and column of each cell of the current batch, ``(up to LANES, 2)``.
        front: Output, ``(size, at least size + 1)``: the weights between the pixels in the upper triangle, and the
            slack in column ``size``.
        top: End of the updates on the stack.
        depth: Number of rows of the grid.
        lateral: Number of columns of the grid.
        work: Buffers of the thread.

    Returns:
        End of the updates on the stack after those of the halves were removed.
    """
    position = work.position
    size = len(nodes)
    front[:] = 0
    for index in range(size):
        position[nodes[index]] = index
    for index in range(plan.pivots[front_index]):
        row = nodes[index] // lateral
        column = nodes[index] % lateral
        front[index, size] += graph.slack[row, column] * scale
        _add_edges(graph, row, column, index, position, scale, front, depth, lateral)
    for half in range(1, -1, -1):  # The update of the second half is on top of the stack.
        child = plan.children[front_index, half]
        if child >= 0:
            begin = plan.start[child] + plan.pivots[child]
            ring = plan.nodes[begin : plan.start[child + 1]]
            ring_size = len(ring)
            top -= ring_size * (ring_size + 1)
            update = work.stack[top : top + ring_size * (ring_size + 1)].reshape(ring_size, ring_size + 1)
            _add_update(update, ring, position, front, size)
        elif child <= -2:
            lane = -2 - child
            ring_pixels(corners[lane, 0], corners[lane, 1], depth, lateral, work.ring)
            _add_cell(work.cell_weights, work.window, lane, work.ring, position, front, size)
    for index in range(size):
        position[nodes[index]] = -1
    return top


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_edges(
    graph: RandomWalkGraph,
    row: int,
    column: int,
    index: int,
    position: Array,
    scale: float,
    front: Array,
    depth: int,
    lateral: int,
) -> None:
    """Add the weights between a pivot and the pixels of the front that are eliminated later."""
    pixel = row * lateral + column
    above = row > 0
    below = row + 1 < depth
    if column > 0:
        other = position[pixel - 1]
        if other > index:
            front[index, other] += graph.horizontal[row, column - 1] * scale
        if above:
            other = position[pixel - lateral - 1]
            if other > index:
                front[index, other] += graph.down_right[row - 1, column - 1] * scale
        if below:
            other = position[pixel + lateral - 1]
            if other > index:
                front[index, other] += graph.down_left[row, column - 1] * scale
    if column + 1 < lateral:
        other = position[pixel + 1]
        if other > index:
            front[index, other] += graph.horizontal[row, column] * scale
        if above:
            other = position[pixel - lateral + 1]
            if other > index:
                front[index, other] += graph.down_left[row - 1, column] * scale
        if below:
            other = position[pixel + lateral + 1]
            if other > index:
                front[index, other] += graph.down_right[row, column] * scale
    if above:
        other = position[pixel - lateral]
        if other > index:
            front[index, other] += graph.vertical[row - 1, column] * scale
    if below:
        other = position[pixel + lateral]
        if other > index:
            front[index, other] += graph.vertical[row, column] * scale


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_update(update: Array, ring: Array, position: Array, front: Array, size: int) -> None:
    """Add the update of a front, which consists of weights between the pixels of its ring, to its parent.

    The pixels of the child and of the parent are both in the order of elimination. The upper triangle therefore remains
    an upper triangle, and most pixels that are consecutive in the child are also consecutive in the parent. Runs of
    such pixels are added together.
    """
    ring_size = len(ring)
    run_start = np.empty(ring_size + 1, np.int64)
    run_target = np.empty(ring_size + 1, np.int64)
    runs = 0
    for j in range(ring_size):
        target = position[ring[j]]
        if j == 0 or target != run_target[runs - 1] + j - run_start[runs - 1]:
            run_start[runs] = j
            run_target[runs] = target
            runs += 1
    run_start[runs] = ring_size
    first_run = 0
    for i in range(ring_size):
        while run_start[first_run + 1] <= i:
            first_run += 1
        parent_row = front[run_target[first_run] + i - run_start[first_run]]
        for run in range(first_run, runs):
            begin = max(run_start[run], i + 1)
            length = run_start[run + 1] - begin
            if length > 0:
                child_run = update[i, begin : begin + length]
                parent_run = parent_row[run_target[run] + begin - run_start[run] :]
                for j in range(length):
                    parent_run[j] += child_run[j]
        parent_row[size] += update[i, ring_size]


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_cell(weights: Array, slacks: Array, lane: int, ring: Array, position: Array, front: Array, size: int) -> None:
    """Add the update of a cell, which consists of weights between the pixels of its ring, to its parent."""
    for index in range(RING):
        # The weights of pixels outside the grid are 0, so they can be added to any entry.
        index_in_front = position[ring[index]] if ring[index] >= 0 else 0
        front[index_in_front, size] += slacks[INNER + index, lane]
        ring[index] = index_in_front
    for index in range(len(RING_FIRST)):
        first = ring[RING_FIRST[index]]
        second = ring[RING_SECOND[index]]
        front[min(first, second), max(first, second)] += weights[FACTOR + index, lane]
