"""Elimination without subtraction: compiled for the CPU, one frame and one thread at a time.

The matrix ``A`` of a random walk is kept as the weights ``w_ij >= 0`` between unknown pixels and the slack
``k_i >= 0`` to pixels of known value; its diagonal is ``k_i + sum_j w_ij`` and is never stored. Eliminating pixel ``p``
reconnects its neighbours,

    w_ij += w_pi w_pj / d_p,    k_i += w_pi k_p / d_p,    d_p = k_p + sum_j w_pj,

where nothing is ever subtracted (Grassmann, Taksar, Heyman 1985: Regenerative analysis and steady state distributions
for Markov chains). So every entry keeps its relative accuracy, whatever the contrast of the weights: float32 gives maps
to some 1e-6 where a Cholesky factorisation in float32 errs by 0.03 to 0.5, and float64 maps to some 1e-14.

The kernels release the GIL and start no threads, so they can be called from many threads, and after a fork.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.cells import (
    ABOVE_SUBNORMAL,
    FACTOR,
    FAST,
    INNER,
    RING,
    RING_FIRST,
    RING_SECOND,
    WEIGHTS,
    factorise_cells,
    reduce_cells,
    ring_pixels,
    substitute_cells,
)
from cm_lightning.confidence.cpu.lanes import LANES
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.network import Network

Numbers = NDArray[Any]

# Pivots that are eliminated together, and columns that are updated at a time. The update of a row by PANEL pivots is
# written out below; the fixed number of columns between rows of multipliers lets the compiler vectorise it.
PANEL = 8
COLUMNS = 256


class Factor(NamedTuple):
    """An eliminated system.

    Attributes:
        cells: Of every batch of cells, each eliminated pixel's weights over their sum, ``(batches, FACTOR, LANES)``.
        cell_pivots: The inverses of those sums, ``(batches, INNER, LANES)``.
        rows: Of every front, each pivot's weights over their sum, ``(factor_size,)``.
        pivots: The inverses of those sums, by pixel, ``(pixels,)``.
    """

    cells: NDArray[np.floating]
    cell_pivots: NDArray[np.floating]
    rows: NDArray[np.floating]
    pivots: NDArray[np.floating]


class Workspace(NamedTuple):
    """Buffers that one thread reuses from frame to frame."""

    front: NDArray[np.floating]
    stack: NDArray[np.floating]
    multipliers: NDArray[np.floating]
    panel_rows: NDArray[np.floating]
    position: NDArray[np.int32]
    cell_weights: NDArray[np.floating]
    window: NDArray[np.floating]
    ring: NDArray[np.int64]
    solution: NDArray[np.floating]


@njit(cache=True, nogil=True)
def front_stride(size: int) -> int:
    """Length of a row in a front's buffer: its pixels and the slack, up to a multiple of 8."""
    return (size + 8) // 8 * 8


def make_factor(dissection: Dissection, dtype: type[np.floating]) -> Factor:
    """Allocate a factor."""
    batches = len(dissection.cells_until)
    return Factor(
        cells=np.empty((batches, FACTOR, LANES), dtype),
        cell_pivots=np.empty((batches, INNER, LANES), dtype),
        rows=np.empty(dissection.factor_size, dtype),
        pivots=np.empty(int(np.prod(dissection.shape)), dtype),
    )


def make_workspace(dissection: Dissection, dtype: type[np.floating]) -> Workspace:
    """Allocate a thread's buffers."""
    largest = dissection.largest_front
    stride = front_stride(largest)
    pixels = int(np.prod(dissection.shape))
    return Workspace(
        front=np.empty(max(largest * stride, 1), dtype),
        stack=np.empty(dissection.stack_size, dtype),
        multipliers=np.empty((-(-stride // COLUMNS), PANEL * COLUMNS), dtype),
        panel_rows=np.empty((2, PANEL), dtype),
        position=np.full(pixels, -1, np.int32),
        cell_weights=np.empty((WEIGHTS, LANES), dtype),
        window=np.empty((INNER + RING, LANES), dtype),
        ring=np.empty(RING, np.int64),
        solution=np.empty(pixels, dtype),
    )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def factorise(network: Network, plan: Dissection, scale: float, factor: Factor, work: Workspace) -> int:
    """Eliminate every pixel.

    Args:
        network: The :class:`Network`.
        plan: The grid's dissection.
        scale: Factor on all weights, which places them inside the range of the factor's type.
        factor: Filled, a :class:`Factor`.
        work: A :class:`Workspace`.

    Returns:
        Number of unknown pixels whose weights all vanished in the factor's type; the system is not solved there.
    """
    depth, lateral = network.slack.shape
    lost = 0
    top = 0  # of the stack
    first_cell = 0
    first_front = 0
    for batch in range(len(plan.cells_until)):
        corners = plan.corners[first_cell : plan.cells_until[batch]]
        first_cell = plan.cells_until[batch]
        lost += factorise_cells(
            network.vertical,
            network.horizontal,
            network.down_right,
            network.down_left,
            network.slack,
            network.unknown,
            scale,
            corners,
            factor.cells[batch],
            factor.cell_pivots[batch],
            work.cell_weights,
            work.window,
        )
        for number in range(first_front, plan.fronts_until[batch]):
            nodes = plan.nodes[plan.start[number] : plan.start[number + 1]]
            size = len(nodes)
            stride = front_stride(size)
            front = work.front[: size * stride].reshape(size, stride)
            top = _assemble(network, plan, scale, number, nodes, corners, front, top, depth, lateral, work)
            rows = factor.rows[plan.factor_start[number] : plan.factor_start[number + 1]]
            lost += _eliminate(front, nodes, plan.pivots[number], network.unknown, rows, factor.pivots, work)
            ring = size - plan.pivots[number]
            update = work.stack[top : top + ring * (ring + 1)].reshape(ring, ring + 1)
            for i in range(ring):
                row = front[plan.pivots[number] + i, plan.pivots[number] :]
                kept = update[i]
                for j in range(i + 1, ring + 1):
                    kept[j] = row[j]
            top += ring * (ring + 1)
        first_front = plan.fronts_until[batch]
    return lost


@njit(cache=True, nogil=True, fastmath=FAST)
def _assemble(
    network: Network,
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
        front[index, size] += network.slack[row, column] * scale
        _add_edges(network, row, column, index, position, scale, front, depth, lateral)
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
    network: Network,
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
            front[index, other] += network.horizontal[row, column - 1] * scale
        if above:
            other = position[pixel - lateral - 1]
            if other > index:
                front[index, other] += network.down_right[row - 1, column - 1] * scale
        if below:
            other = position[pixel + lateral - 1]
            if other > index:
                front[index, other] += network.down_left[row, column - 1] * scale
    if column + 1 < lateral:
        other = position[pixel + 1]
        if other > index:
            front[index, other] += network.horizontal[row, column] * scale
        if above:
            other = position[pixel - lateral + 1]
            if other > index:
                front[index, other] += network.down_left[row - 1, column] * scale
        if below:
            other = position[pixel + lateral + 1]
            if other > index:
                front[index, other] += network.down_right[row, column] * scale
    if above:
        other = position[pixel - lateral]
        if other > index:
            front[index, other] += network.vertical[row - 1, column] * scale
    if below:
        other = position[pixel + lateral]
        if other > index:
            front[index, other] += network.vertical[row, column] * scale


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


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def _eliminate(
    front: Numbers,
    nodes: Numbers,
    eliminated: int,
    unknown: Numbers,
    factor_rows: Numbers,
    factor_pivots: Numbers,
    work: Workspace,
) -> int:
    """Eliminate a front's pivots, PANEL of them at a time.

    Returns:
        Number of unknown pivots without any weight.
    """
    size, stride = front.shape
    unknown_flat = unknown.ravel()
    multipliers = work.multipliers
    zero = front.dtype.type(0)
    one = front.dtype.type(1)
    tiles = (stride + COLUMNS - 1) // COLUMNS
    lost = 0
    write = 0
    for begin in range(0, eliminated, PANEL):
        end = min(begin + PANEL, eliminated)
        from_column = begin // 8 * 8
        for pivot in range(begin, end):
            # Bring the pivot's row up to date with the panel's earlier pivots.
            for tile in range(from_column // COLUMNS, tiles):
                left = max(tile * COLUMNS, from_column)
                length = min((tile + 1) * COLUMNS, stride) - left
                row = front[pivot, left : left + length]
                for earlier in range(begin, pivot):
                    offset = (earlier - begin) * COLUMNS + left - tile * COLUMNS
                    _add_multiple(row, multipliers[tile, offset : offset + length], front[earlier, pivot])
            total = zero
            rest = front[pivot, pivot + 1 : size + 1]
            for j in range(len(rest)):
                total += rest[j]
            inverse = zero
            if total > zero:
                inverse = one / total
            elif unknown_flat[nodes[pivot]]:
                lost += 1
            factor_pivots[nodes[pivot]] = inverse
            for tile in range(from_column // COLUMNS, tiles):
                left = max(tile * COLUMNS, from_column)
                length = min((tile + 1) * COLUMNS, stride) - left
                offset = (pivot - begin) * COLUMNS + left - tile * COLUMNS
                ratios = multipliers[tile, offset : offset + length]
                _divide(front[pivot, left : left + length], inverse, ratios)
                first = max(left, pivot + 1)
                count = min(left + length, size) - first
                if count > 0:
                    _copy(ratios[first - left :], factor_rows[write + first - pivot - 1 :], count)
            write += size - pivot - 1
        for pivot in range(end, begin + PANEL):  # what an earlier front left there must not count
            for tile in range(tiles):
                offset = (pivot - begin) * COLUMNS
                multipliers[tile, offset : offset + min(COLUMNS, stride - tile * COLUMNS)] = zero
        _update(front, begin, end, size, multipliers, work.panel_rows)
    return lost


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_multiple(target: Numbers, source: Numbers, weight: float) -> None:
    """Compute ``target += weight * source``."""
    for j in range(len(target)):
        target[j] += weight * source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _copy(source: Numbers, target: Numbers, count: int) -> None:
    """Compute ``target[:count] = source[:count]``."""
    for j in range(count):
        target[j] = source[j]


@njit(cache=True, nogil=True, fastmath=FAST)
def _divide(row: Numbers, inverse: float, target: Numbers) -> None:
    """Divide a row by its pivot."""
    negligible = np.finfo(row.dtype).tiny * row.dtype.type(ABOVE_SUBNORMAL)
    for j in range(len(target)):
        ratio = row[j] * inverse
        target[j] = ratio if ratio > negligible else row.dtype.type(0)


@njit(cache=True, nogil=True, fastmath=FAST)
def _update(front: Numbers, begin: int, end: int, size: int, multipliers: Numbers, panel_rows: Numbers) -> None:
    """Reconnect the pixels that stay: ``w_ij += sum_p w_pi w_pj / d_p`` over the pivots ``begin`` to ``end``.

    Two rows at a time, from the last multiple of 8 columns before the diagonal on: what is added below the diagonal is
    never read, and whole vectors are faster than exact triangles.
    """
    stride = front.shape[1]
    zero = front.dtype.type(0)
    panel_rows[:] = zero
    for tile in range(end // 8 * 8 // COLUMNS, (stride + COLUMNS - 1) // COLUMNS):
        right = min((tile + 1) * COLUMNS, stride)
        for i in range(end, size, 2):
            left = max(tile * COLUMNS, i // 8 * 8)
            if left >= right:
                break
            second = min(i + 1, size - 1)
            for pivot in range(begin, end):
                panel_rows[0, pivot - begin] = front[pivot, i]
                panel_rows[1, pivot - begin] = front[pivot, second] if second > i else zero
            _update_rows(
                front[i, left:],
                front[second, left:],
                multipliers[tile, left - tile * COLUMNS :],
                panel_rows,
                right - left,
            )


@njit(cache=True, nogil=True, fastmath=FAST)
def _update_rows(first: Numbers, second: Numbers, multiplier: Numbers, panel_rows: Numbers, length: int) -> None:
    """Add PANEL multiples to two rows; written out, because the compiler vectorises it only so."""
    for j in range(length):
        m0 = multiplier[j]
        m1 = multiplier[COLUMNS + j]
        m2 = multiplier[2 * COLUMNS + j]
        m3 = multiplier[3 * COLUMNS + j]
        m4 = multiplier[4 * COLUMNS + j]
        m5 = multiplier[5 * COLUMNS + j]
        m6 = multiplier[6 * COLUMNS + j]
        m7 = multiplier[7 * COLUMNS + j]
        first[j] += (
            panel_rows[0, 0] * m0 + panel_rows[0, 1] * m1 + panel_rows[0, 2] * m2 + panel_rows[0, 3] * m3
            + panel_rows[0, 4] * m4 + panel_rows[0, 5] * m5 + panel_rows[0, 6] * m6 + panel_rows[0, 7] * m7
        )  # fmt: skip
        second[j] += (
            panel_rows[1, 0] * m0 + panel_rows[1, 1] * m1 + panel_rows[1, 2] * m2 + panel_rows[1, 3] * m3
            + panel_rows[1, 4] * m4 + panel_rows[1, 5] * m5 + panel_rows[1, 6] * m6 + panel_rows[1, 7] * m7
        )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=FAST)
def substitute(
    right: Numbers, plan: Dissection, scale: float, factor: Factor, work: Workspace, depth: int, lateral: int
) -> None:
    """Solve ``A x = b`` with the factor, in the factor's type; leaves ``x`` in ``work.solution``.

    Args:
        right: ``b``, ``(pixels,)``, 0 at pixels of known value.
        plan: The grid's dissection.
        scale: As given to :func:`factorise`.
        factor: From :func:`factorise`.
        work: A :class:`Workspace`.
        depth: Rows of the grid.
        lateral: Columns of the grid.
    """
    solution = work.solution
    values = work.front
    batches = len(plan.cells_until)
    for pixel in range(len(right)):
        solution[pixel] = right[pixel] * scale
    for batch in range(batches):
        corners = plan.corners[(plan.cells_until[batch - 1] if batch > 0 else 0) : plan.cells_until[batch]]
        reduce_cells(corners, factor.cells[batch], factor.cell_pivots[batch], depth, lateral, solution, work.window)
        for number in range(plan.fronts_until[batch - 1] if batch > 0 else 0, plan.fronts_until[batch]):
            nodes = plan.nodes[plan.start[number] : plan.start[number + 1]]
            size = len(nodes)
            for index in range(size):
                values[index] = solution[nodes[index]]
            read = plan.factor_start[number]
            for pivot in range(plan.pivots[number]):
                length = size - pivot - 1
                _add_multiple(values[pivot + 1 : size], factor.rows[read : read + length], values[pivot])
                read += length
                values[pivot] *= factor.pivots[nodes[pivot]]
            for index in range(size):
                solution[nodes[index]] = values[index]
    for batch in range(batches - 1, -1, -1):
        for number in range(plan.fronts_until[batch] - 1, (plan.fronts_until[batch - 1] if batch > 0 else 0) - 1, -1):
            nodes = plan.nodes[plan.start[number] : plan.start[number + 1]]
            size = len(nodes)
            for index in range(size):
                values[index] = solution[nodes[index]]
            read = plan.factor_start[number + 1]
            for pivot in range(plan.pivots[number] - 1, -1, -1):
                length = size - pivot - 1
                read -= length
                ratios = factor.rows[read : read + length]
                rest = values[pivot + 1 : size]
                total = values[pivot]
                for j in range(length):
                    total += ratios[j] * rest[j]
                values[pivot] = total
                solution[nodes[pivot]] = total
        corners = plan.corners[(plan.cells_until[batch - 1] if batch > 0 else 0) : plan.cells_until[batch]]
        substitute_cells(corners, factor.cells[batch], depth, lateral, solution, work.window)
