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

from typing import Any

from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.assembly import assemble_front
from cm_lightning.confidence.cpu.cells import FAST, factorise_cells, reduce_cells, substitute_cells
from cm_lightning.confidence.cpu.fronts import add_multiple, eliminate_front
from cm_lightning.confidence.cpu.memory import Factor, Workspace, front_stride
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.graph import RandomWalkGraph

Numbers = NDArray[Any]


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def factorise(graph: RandomWalkGraph, plan: Dissection, scale: float, factor: Factor, work: Workspace) -> int:
    """Eliminate every pixel.

    Args:
        graph: The :class:`RandomWalkGraph`.
        plan: The grid's dissection.
        scale: Factor on all weights, which places them inside the range of the factor's type.
        factor: Filled, a :class:`Factor`.
        work: A :class:`Workspace`.

    Returns:
        Number of unknown pixels whose weights all vanished in the factor's type; the system is not solved there.
    """
    depth, lateral = graph.slack.shape
    lost = 0
    top = 0  # of the stack
    first_cell = 0
    first_front = 0
    for batch in range(len(plan.cells_until)):
        corners = plan.corners[first_cell : plan.cells_until[batch]]
        first_cell = plan.cells_until[batch]
        lost += factorise_cells(
            graph.vertical,
            graph.horizontal,
            graph.down_right,
            graph.down_left,
            graph.slack,
            graph.unknown,
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
            top = assemble_front(graph, plan, scale, number, nodes, corners, front, top, depth, lateral, work)
            rows = factor.rows[plan.factor_start[number] : plan.factor_start[number + 1]]
            lost += eliminate_front(front, nodes, plan.pivots[number], graph.unknown, rows, factor.pivots, work)
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
                add_multiple(values[pivot + 1 : size], factor.rows[read : read + length], values[pivot])
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
