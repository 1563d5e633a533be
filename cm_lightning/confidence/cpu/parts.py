"""Elimination and substitution of the parts and upper fronts of a large frame, each on one thread.

The compiled functions release the GIL and do not start threads. They can be called from several threads, and after a
fork.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.fronts import FrontBuffers, eliminate_front, front_stride, make_front_buffers
from cm_lightning.confidence.cpu.lanes import (
    LaneBuffers,
    factorise_lanes,
    make_buffers,
    reduce_lanes,
    substitute_lanes,
)
from cm_lightning.confidence.cpu.plan import CELL, CELL_RING, Layout, Plan, ring_of_cell
from cm_lightning.confidence.cpu.program import Program
from cm_lightning.confidence.cpu.vectors import FAST, LANES, aligned_empty, transpose
from cm_lightning.confidence.graph import RandomWalkGraph

Array = NDArray[Any]

# Side length in pixels of the window of a cell, which includes its margin. Each row of the update of a cell contains
# CELL_RING weights and the slack. There is one unused row at the end, because stores of complete vectors exceed the end
# of the row before it.
WINDOW = CELL + 2
UPDATE_ROW = CELL_RING + 1
UPDATE_SIZE = UPDATE_ROW * UPDATE_ROW


class Factor(NamedTuple):
    """Factorised linear system of a large frame.

    Attributes:
        cells: Factor of the cells of every batch, ``(batches, program.factor_start[-1], LANES)``.
        cell_inverses: Inverses of the sums of the weights and slack of the pixels of the cells, ``(batches, WINDOW**2,
            LANES)``.
        rows: Weights of each pivot, divided by the sum of its weights and slack, for all fronts,
            ``(factor_start[-1],)``.
        inverses: Inverses of these sums by pixel, ``(pixels,)``.
    """

    cells: Array
    cell_inverses: Array
    rows: Array
    inverses: Array


class Workspace(NamedTuple):
    """Buffers of a thread.

    Attributes:
        lanes: Buffers of the elimination of cells.
        fronts: Buffers of the elimination of fronts.
        edges: Weights of a batch of cells, ``(4 * WINDOW**2, LANES)``.
        slack: Slack of a batch of cells, ``(WINDOW**2, LANES)``.
        window: Vector on a batch of cells, ``(WINDOW**2, LANES)``.
        cell_updates: Updates of the last two batches of cells, symmetric, with the slack at the end of each row,
            ``(2 * LANES * UPDATE_SIZE,)``.
        stack: Updates of eliminated fronts that have not been added to their parents yet, ``(stack_size,)``.
        position: Index of each pixel in the current front, -1 for other pixels, ``(pixels,)``.
    """

    lanes: LaneBuffers
    fronts: FrontBuffers
    edges: Array
    slack: Array
    window: Array
    cell_updates: Array
    stack: Array
    position: Array


def make_factor(layout: Layout, program: Program, dtype: type[np.floating]) -> Factor:
    """Allocate a factor.

    Args:
        layout: Layout of the frame.
        program: Program of the cells.
        dtype: Type of the factor.

    Returns:
        Factor with arbitrary values.
    """
    batches = len(layout.plan.batches)
    return Factor(
        cells=aligned_empty((batches, int(program.factor_start[-1]), LANES), dtype),
        cell_inverses=aligned_empty((batches, WINDOW**2, LANES), dtype),
        rows=aligned_empty(int(layout.plan.factor_start[-1]), dtype),
        inverses=aligned_empty(layout.shape[0] * layout.shape[1], dtype),
    )


def make_workspace(layout: Layout, program: Program, dtype: type[np.floating]) -> Workspace:
    """Allocate the buffers of a thread.

    Args:
        layout: Layout of the frame.
        program: Program of the cells.
        dtype: Type of the factor.

    Returns:
        The buffers.
    """
    return Workspace(
        lanes=make_buffers(program, dtype),
        fronts=make_front_buffers(layout.largest, dtype),
        edges=aligned_empty((4 * WINDOW**2, LANES), dtype),
        slack=aligned_empty((WINDOW**2, LANES), dtype),
        window=aligned_empty((WINDOW**2, LANES), dtype),
        cell_updates=aligned_empty(2 * LANES * UPDATE_SIZE, dtype),
        stack=aligned_empty(layout.stack_size, dtype),
        position=np.full(layout.shape[0] * layout.shape[1], -1, np.int32),
    )


@njit(cache=True, nogil=True, fastmath=FAST)
def eliminate_part(
    graph: RandomWalkGraph,
    plan: Plan,
    program: Program,
    part: int,
    scale: float,
    factor: Factor,
    work: Workspace,
    update: Array,
) -> int:
    """Eliminate a part of a frame.

    Args:
        graph: Linear system of the frame.
        plan: Plan of the frame.
        program: Program of the cells.
        part: Number of the part.
        scale: Number by which all weights are multiplied, which shifts them to the range of the type of the factor.
        factor: Output, the factor.
        work: Buffers of the thread.
        update: Output, update of the last front of the part, ``(ring * (ring + 1),)``.

    Returns:
        Number of unknown pixels of the part without positive weights, for which the system cannot be solved.
    """
    depth, lateral = graph.slack.shape
    zero_pivots = 0
    top = 0
    end_batch = plan.parts[part, 1]
    last_front = plan.batches[end_batch - 1, 3] - 1
    for batch in range(plan.parts[part, 0], end_batch):
        corners = plan.corners[plan.batches[batch, 0] : plan.batches[batch, 1]]
        _gather(graph, corners, scale, work.edges, work.slack)
        factorise_lanes(program, work.edges, work.slack, factor.cells[batch], factor.cell_inverses[batch], work.lanes)
        _spread(work.lanes.stack, work.cell_updates, batch % 2 * LANES)
        zero_pivots += _zero_pivots(graph.unknown, corners, factor.cell_inverses[batch])
        for front in range(plan.batches[batch, 2], plan.batches[batch, 3]):
            pixels = plan.pixels[plan.start[front] : plan.start[front + 1]]
            size, pivots = len(pixels), plan.pivots[front]
            _add_edges(graph, pixels, pivots, scale, work, depth, lateral)
            for half in range(1, -1, -1):  # The update of the second half is on top of the stack.
                child = plan.halves[front, half]
                runs = plan.runs[plan.run_start[2 * front + half] : plan.run_start[2 * front + half + 1]]
                if child >= 0:
                    ring = plan.start[child + 1] - plan.start[child] - plan.pivots[child]
                    top -= ring * (ring + 1)
                    _add_update(work.fronts.front, size, work.stack[top : top + ring * (ring + 1)], ring, runs)
                elif child <= -2:
                    begin = (-2 - child) * UPDATE_SIZE
                    cell = work.cell_updates[begin : begin + UPDATE_SIZE]
                    _add_update(work.fronts.front, size, cell, CELL_RING, runs)
            zero_pivots += _eliminate(plan, front, pixels, graph.unknown, factor, work)
            ring = size - pivots
            if front == last_front:
                _copy_update(work.fronts.front, size, pivots, update)
            else:
                _copy_update(work.fronts.front, size, pivots, work.stack[top : top + ring * (ring + 1)])
                top += ring * (ring + 1)
    return zero_pivots


@njit(cache=True, nogil=True, fastmath=FAST)
def eliminate_upper_front(
    graph: RandomWalkGraph,
    plan: Plan,
    front: int,
    scale: float,
    factor: Factor,
    work: Workspace,
    first: Array,
    second: Array,
    update: Array,
) -> int:
    """Eliminate a front of the upper levels.

    Args:
        graph: Linear system of the frame.
        plan: Plan of the frame.
        front: Number of the front.
        scale: Number by which all weights are multiplied.
        factor: Output, the factor.
        work: Buffers of the thread.
        first: Update of the first half, ``(ring * (ring + 1),)``.
        second: Update of the second half, ``(ring * (ring + 1),)``.
        update: Output, update of the front, ``(ring * (ring + 1),)``.

    Returns:
        Number of unknown pivots without positive weights.
    """
    depth, lateral = graph.slack.shape
    pixels = plan.pixels[plan.start[front] : plan.start[front + 1]]
    pivots = plan.pivots[front]
    _add_edges(graph, pixels, pivots, scale, work, depth, lateral)
    for half in range(1, -1, -1):
        child = first if half == 0 else second
        runs = plan.runs[plan.run_start[2 * front + half] : plan.run_start[2 * front + half + 1]]
        index = plan.halves[front, half]
        ring = plan.start[index + 1] - plan.start[index] - plan.pivots[index]
        _add_update(work.fronts.front, len(pixels), child, ring, runs)
    zero_pivots = _eliminate(plan, front, pixels, graph.unknown, factor, work)
    _copy_update(work.fronts.front, len(pixels), pivots, update)
    return zero_pivots


@njit(cache=True, nogil=True, fastmath=FAST)
def _gather(graph: RandomWalkGraph, corners: Array, scale: float, edges: Array, slack: Array) -> None:
    """Copy the weights of a batch of cells and of their margins, 0 outside the frame and for missing cells."""
    depth, lateral = graph.slack.shape
    pixels = WINDOW * WINDOW
    edges[:] = 0
    slack[:] = 0
    for lane in range(len(corners)):
        top, left = corners[lane, 0] - 1, corners[lane, 1] - 1
        for row in range(max(top, 0), min(top + WINDOW, depth)):
            for column in range(max(left, 0), min(left + WINDOW, lateral)):
                pixel = (row - top) * WINDOW + column - left
                slack[pixel, lane] = graph.slack[row, column] * scale
                # Weights between pixels of the margin are not used by the program.
                if row + 1 < depth:
                    edges[pixel, lane] = graph.vertical[row, column] * scale
                if column + 1 < lateral:
                    edges[pixels + pixel, lane] = graph.horizontal[row, column] * scale
                    if row + 1 < depth:
                        edges[2 * pixels + pixel, lane] = graph.down_right[row, column] * scale
                        edges[3 * pixels + pixel, lane] = graph.down_left[row, column] * scale


@njit(cache=True, nogil=True, fastmath=FAST)
def _spread(stack: Array, updates: Array, slot: int) -> None:
    """Copy the packed triangles of the updates of LANES cells to the symmetric arrays from a slot on."""
    begin = slot * UPDATE_SIZE
    packed = 0
    for row in range(CELL_RING):
        for column in range(row + 1, UPDATE_ROW, LANES):
            # What is written beyond the end of a row is overwritten by the next one.
            transpose(stack, packed + column - row - 1, updates, begin + row * UPDATE_ROW + column, UPDATE_SIZE)
        packed += CELL_RING - row
    for lane in range(LANES):
        update = updates[begin + lane * UPDATE_SIZE : begin + (lane + 1) * UPDATE_SIZE]
        for first in range(0, CELL_RING, 16):
            for second in range(first, CELL_RING, 16):
                for row in range(first, min(first + 16, CELL_RING)):
                    for column in range(max(second, row + 1), min(second + 16, CELL_RING)):
                        update[column * UPDATE_ROW + row] = update[row * UPDATE_ROW + column]


@njit(cache=True, nogil=True)
def _zero_pivots(unknown: Array, corners: Array, inverses: Array) -> int:
    """Return the number of unknown pixels of cells whose inverse is 0."""
    depth, lateral = unknown.shape
    count = 0
    for lane in range(len(corners)):
        top, left = corners[lane]
        for row in range(top, min(top + CELL, depth)):
            for column in range(left, min(left + CELL, lateral)):
                pixel = (row - top + 1) * WINDOW + column - left + 1
                count += unknown[row, column] and inverses[pixel, lane] == 0
    return count


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_edges(
    graph: RandomWalkGraph, pixels: Array, pivots: int, scale: float, work: Workspace, depth: int, lateral: int
) -> None:
    """Set a front to the weights between its pivots and its other pixels, and the slack of its pivots."""
    front, position = work.fronts.front, work.position
    size = len(pixels)
    stride = front_stride(size)
    for index in range(size):
        front[index * stride + index // LANES * LANES : (index + 1) * stride] = 0
        position[pixels[index]] = index
    for index in range(pivots):
        row, column = pixels[index] // lateral, pixels[index] % lateral
        start = index * stride
        front[start + size] += graph.slack[row, column] * scale
        for down in range(-1, 2):
            for right in range(-1, 2):
                other_row, other_column = row + down, column + right
                if 0 <= other_row < depth and 0 <= other_column < lateral:
                    other = position[other_row * lateral + other_column]
                    if other > index:
                        upper, first = min(row, other_row), min(column, other_column)
                        if down == 0:
                            weight = graph.horizontal[row, first]
                        elif right == 0:
                            weight = graph.vertical[upper, column]
                        elif down == right:
                            weight = graph.down_right[upper, first]
                        else:
                            weight = graph.down_left[upper, first]
                        front[start + other] += weight * scale
    for index in range(size):
        position[pixels[index]] = -1


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_update(front: Array, size: int, update: Array, ring: int, runs: Array) -> None:
    """Add the update of a half, ``(ring, ring + 1)``, to a front.

    The runs are in the order of the pixels of the front, so only the upper triangle of the front is changed. The ring
    of a cell is in another order; the values that are added may therefore be in the lower triangle of its update, which
    is symmetric.
    """
    stride = front_stride(size)
    for run in range(len(runs)):
        source, target, length = runs[run, 0], runs[run, 1], runs[run, 2]
        for k in range(length):
            update_row = update[(source + k) * (ring + 1) : (source + k + 1) * (ring + 1)]
            front_row = front[(target + k) * stride : (target + k + 1) * stride]
            _add(front_row[target + k + 1 : target + length], update_row[source + k + 1 : source + length])
            for other in range(run + 1, len(runs)):
                other_source, other_target, other_length = runs[other, 0], runs[other, 1], runs[other, 2]
                _add(
                    front_row[other_target : other_target + other_length],
                    update_row[other_source : other_source + other_length],
                )
            front_row[size] += update_row[ring]


@njit(cache=True, nogil=True, fastmath=FAST)
def _add(target: Array, source: Array) -> None:
    for k in range(len(target)):
        target[k] += source[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _eliminate(plan: Plan, front: int, pixels: Array, unknown: Array, factor: Factor, work: Workspace) -> int:
    """Eliminate the pivots of an assembled front; return the number of unknown pivots without positive weights."""
    pivots = plan.pivots[front]
    rows = factor.rows[plan.factor_start[front] : plan.factor_start[front + 1]]
    eliminate_front(len(pixels), pixels, pivots, rows, factor.inverses, work.fronts)
    zero_pivots = 0
    for pivot in range(pivots):
        pixel = pixels[pivot]
        zero_pivots += unknown[pixel // unknown.shape[1], pixel % unknown.shape[1]] and factor.inverses[pixel] == 0
    return zero_pivots


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy_update(front: Array, size: int, pivots: int, update: Array) -> None:
    """Copy the weights between the pixels of the ring and their slack."""
    stride = front_stride(size)
    ring = size - pivots
    for row in range(ring):
        source = front[(pivots + row) * stride + pivots : (pivots + row + 1) * stride]
        target = update[row * (ring + 1) : (row + 1) * (ring + 1)]
        for column in range(row + 1, ring + 1):
            target[column] = source[column]


@njit(cache=True, nogil=True, fastmath=FAST)
def reduce_part(
    plan: Plan, program: Program, part: int, factor: Factor, work: Workspace, depth: int, lateral: int, vector: Array
) -> None:
    """Apply forward substitution to a part.

    Args:
        plan: Plan of the frame.
        program: Program of the cells.
        part: Number of the part.
        factor: The factor.
        work: Buffers of the thread.
        depth: Number of rows of the frame.
        lateral: Number of columns of the frame.
        vector: Right-hand side at the pixels of the part, ``(pixels,)``; changed in place. The contributions of the
            part are added to the pixels around it.
    """
    window = work.window
    ring = np.empty(CELL_RING, np.int64)
    for batch in range(plan.parts[part, 0], plan.parts[part, 1]):
        corners = plan.corners[plan.batches[batch, 0] : plan.batches[batch, 1]]
        window[:] = 0
        _copy_cells(corners, vector, depth, lateral, window, True)
        reduce_lanes(program, factor.cells[batch], factor.cell_inverses[batch], window, work.lanes.values)
        _copy_cells(corners, vector, depth, lateral, window, False)
        for lane in range(len(corners)):
            ring_of_cell(corners[lane, 0], corners[lane, 1], depth, lateral, ring)
            for index in range(CELL_RING):
                if ring[index] >= 0:
                    vector[ring[index]] += window[_margin_pixel(index), lane]
        for front in range(plan.batches[batch, 2], plan.batches[batch, 3]):
            reduce_front(plan, front, factor, work, vector)


@njit(cache=True, nogil=True, fastmath=FAST)
def substitute_part(
    plan: Plan, program: Program, part: int, factor: Factor, work: Workspace, depth: int, lateral: int, vector: Array
) -> None:
    """Apply backward substitution to a part after the pixels around it have been solved.

    Args:
        plan: Plan of the frame.
        program: Program of the cells.
        part: Number of the part.
        factor: The factor.
        work: Buffers of the thread.
        depth: Number of rows of the frame.
        lateral: Number of columns of the frame.
        vector: Result of :func:`reduce_part` at the pixels of the part, and the solution at the pixels around it,
            ``(pixels,)``; changed in place.
    """
    window = work.window
    ring = np.empty(CELL_RING, np.int64)
    for batch in range(plan.parts[part, 1] - 1, plan.parts[part, 0] - 1, -1):
        for front in range(plan.batches[batch, 3] - 1, plan.batches[batch, 2] - 1, -1):
            substitute_front(plan, front, factor, work, vector)
        corners = plan.corners[plan.batches[batch, 0] : plan.batches[batch, 1]]
        window[:] = 0
        _copy_cells(corners, vector, depth, lateral, window, True)
        for lane in range(len(corners)):
            ring_of_cell(corners[lane, 0], corners[lane, 1], depth, lateral, ring)
            for index in range(CELL_RING):
                if ring[index] >= 0:
                    window[_margin_pixel(index), lane] = vector[ring[index]]
        substitute_lanes(program, factor.cells[batch], window, work.lanes.values)
        _copy_cells(corners, vector, depth, lateral, window, False)


@njit(cache=True, nogil=True)
def _margin_pixel(index: int) -> int:
    """Return the pixel of the window of a cell for an index of its ring; see :func:`ring_of_cell`."""
    if index < 2 * WINDOW:
        return index // WINDOW * (WINDOW - 1) * WINDOW + index % WINDOW
    index -= 2 * WINDOW
    return (index % CELL + 1) * WINDOW + index // CELL * (WINDOW - 1)


@njit(cache=True, nogil=True)
def _copy_cells(corners: Array, vector: Array, depth: int, lateral: int, window: Array, into_window: bool) -> None:
    """Copy the values at the pixels of a batch of cells between the frame and the windows of the cells."""
    for lane in range(len(corners)):
        top, left = corners[lane]
        for row in range(top, min(top + CELL, depth)):
            for column in range(left, min(left + CELL, lateral)):
                pixel = (row - top + 1) * WINDOW + column - left + 1
                if into_window:
                    window[pixel, lane] = vector[row * lateral + column]
                else:
                    vector[row * lateral + column] = window[pixel, lane]


@njit(cache=True, nogil=True, fastmath=FAST)
def reduce_front(plan: Plan, front: int, factor: Factor, work: Workspace, vector: Array) -> None:
    """Apply forward substitution to the pixels of a front of a vector, ``(pixels,)``."""
    values = work.fronts.values
    pixels = plan.pixels[plan.start[front] : plan.start[front + 1]]
    size = len(pixels)
    for k in range(size):
        values[k] = vector[pixels[k]]
    position = plan.factor_start[front]
    for pivot in range(plan.pivots[front]):
        _add_multiple(values[pivot + 1 : size], factor.rows[position : position + size - pivot - 1], values[pivot])
        position += size - pivot - 1
        values[pivot] *= factor.inverses[pixels[pivot]]
    for k in range(size):
        vector[pixels[k]] = values[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_multiple(target: Array, source: Array, weight: float) -> None:
    for k in range(len(target)):
        target[k] += weight * source[k]


@njit(cache=True, nogil=True, fastmath=FAST)
def substitute_front(plan: Plan, front: int, factor: Factor, work: Workspace, vector: Array) -> None:
    """Apply backward substitution to the pixels of a front of a vector, ``(pixels,)``."""
    values = work.fronts.values
    pixels = plan.pixels[plan.start[front] : plan.start[front + 1]]
    size = len(pixels)
    for k in range(size):
        values[k] = vector[pixels[k]]
    position = plan.factor_start[front + 1]
    for pivot in range(plan.pivots[front] - 1, -1, -1):
        position -= size - pivot - 1
        ratios, later = factor.rows[position : position + size - pivot - 1], values[pivot + 1 : size]
        total = values[pivot]
        for k in range(len(ratios)):
            total += ratios[k] * later[k]
        values[pivot] = total
        vector[pixels[pivot]] = total
