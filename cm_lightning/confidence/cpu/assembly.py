"""Assembly of fronts: the weights of a front's own pivots, and what the elimination of its halves left between them."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.cells import FAST
from cm_lightning.confidence.cpu.memory import Workspace
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.pattern import FACTOR, INNER, PATTERN, RING, ring_pixels

Numbers = NDArray[Any]

RING_FIRST, RING_SECOND = PATTERN.ring_first, PATTERN.ring_second


@njit(cache=True, nogil=True, fastmath=FAST)
def assemble_front(
    graph: RandomWalkGraph,
    plan: Dissection,
    scale: float,
    number: int,
    nodes: Numbers,
    corners: Numbers,
    front: Numbers,
    top: int,
    depth: int,
    lateral: int,
    work: Workspace,
) -> int:
    """Sum up a front: weights of its own pivots, and what elimination left of its halves.

    The upper triangle holds the weights between its pixels, the column after the last pixel their slack.

    Returns:
        The stack's top, with the halves' updates taken off.
    """
    position = work.position
    size = len(nodes)
    front[:] = 0
    for index in range(size):
        position[nodes[index]] = index
    for index in range(plan.pivots[number]):
        row = nodes[index] // lateral
        column = nodes[index] % lateral
        front[index, size] += graph.slack[row, column] * scale
        _add_edges(graph, row, column, index, position, scale, front, depth, lateral)
    for half in range(1, -1, -1):  # the second is on top of the stack
        child = plan.children[number, half]
        if child >= 0:
            begin = plan.start[child] + plan.pivots[child]
            ring = plan.nodes[begin : plan.start[child + 1]]
            held = len(ring)
            top -= held * (held + 1)
            update = work.stack[top : top + held * (held + 1)].reshape(held, held + 1)
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
    position: Numbers,
    scale: float,
    front: Numbers,
    depth: int,
    lateral: int,
) -> None:
    """Add the weights between a pivot and the pixels of its front that are eliminated later."""
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
def _add_update(update: Numbers, ring: Numbers, position: Numbers, front: Numbers, size: int) -> None:
    """Add what a front's elimination left between the pixels of its ring to its parent.

    Both orders are that of elimination, so the upper triangle stays an upper triangle, and pixels side by side in the
    child mostly are side by side in the parent: whole runs are added at a time.
    """
    held = len(ring)
    run_start = np.empty(held + 1, np.int64)
    run_target = np.empty(held + 1, np.int64)
    runs = 0
    for j in range(held):
        target = position[ring[j]]
        if j == 0 or target != run_target[runs - 1] + j - run_start[runs - 1]:
            run_start[runs] = j
            run_target[runs] = target
            runs += 1
    run_start[runs] = held
    first_run = 0
    for i in range(held):
        while run_start[first_run + 1] <= i:
            first_run += 1
        into = front[run_target[first_run] + i - run_start[first_run]]
        for run in range(first_run, runs):
            begin = max(run_start[run], i + 1)
            length = run_start[run + 1] - begin
            if length > 0:
                source = update[i, begin : begin + length]
                target_row = into[run_target[run] + begin - run_start[run] :]
                for j in range(length):
                    target_row[j] += source[j]
        into[size] += update[i, held]


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_cell(
    weights: Numbers, slacks: Numbers, lane: int, ring: Numbers, position: Numbers, front: Numbers, size: int
) -> None:
    """Add what a cell's elimination left between the pixels of its ring to its parent."""
    for index in range(RING):
        # Pixels outside the grid have no weights; what is added for them is 0, wherever it is added.
        place = position[ring[index]] if ring[index] >= 0 else 0
        front[place, size] += slacks[INNER + index, lane]
        ring[index] = place
    for index in range(len(RING_FIRST)):
        first = ring[RING_FIRST[index]]
        second = ring[RING_SECOND[index]]
        front[min(first, second), max(first, second)] += weights[FACTOR + index, lane]
