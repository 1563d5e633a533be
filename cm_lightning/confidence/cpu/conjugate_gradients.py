"""Preconditioned conjugate gradients and direct solution of linear systems, for the CPU.

All computations are in float64, except for those with the factor. The preconditioner is a factorisation without
subtractions (:mod:`cm_lightning.confidence.cpu.factorisation`), by default in float32. It approximates every entry of
the inverse matrix with a relative error of about 1e-6. Every step of conjugate gradients therefore reduces the error by
about this factor.

Arrays have the shape ``(depth, lateral * lanes)``; see :mod:`cm_lightning.confidence.cpu.equations`. The systems of
different lanes are solved independently.

References:
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", Journal of Research of the
    National Bureau of Standards 1952.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.factorisation import Factorisation
from cm_lightning.confidence.cpu.threads import Workers, row_blocks
from cm_lightning.confidence.graph import RandomWalkGraph

Array = NDArray[Any]

_NO_MAGNITUDE = np.empty((0, 0))


def multiply(
    graph: RandomWalkGraph, x: Array, result: Array, lanes: int, workers: Workers, magnitude: Array = _NO_MAGNITUDE
) -> None:
    """Compute ``(A x)_i = slack_i x_i + sum_j w_ij (x_i - x_j)``, without the diagonal of ``A``.

    Args:
        graph: Linear systems.
        x: Vector, float64, ``(depth, lateral * lanes)``, 0 outside the unknown pixels.
        result: Output, ``A x``, ``(depth, lateral * lanes)``.
        lanes: Number of lanes.
        workers: Threads.
        magnitude: Output, sum of the absolute values of the terms of each entry, ``(depth, lateral * lanes)``. It is
            not computed if this array is empty.
    """

    def multiply_block(rows: tuple[int, int]) -> None:
        _multiply_rows(graph, x, lanes, result, magnitude, *rows)

    workers.run(multiply_block, row_blocks(len(x), workers))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _multiply_rows(
    graph: RandomWalkGraph, x: Array, lanes: int, result: Array, magnitude: Array, first: int, end: int
) -> None:
    depth, width = x.shape
    with_magnitude = magnitude.size > 0
    inner = width - lanes
    for row in range(first, end):
        own, target = x[row], result[row]
        for k in range(width):
            target[k] = graph.slack[row, k] * own[k]
        if with_magnitude:
            for k in range(width):
                magnitude[row, k] = abs(target[k])
        for neighbour in range(8):
            # Above, below, left, right, upper left, lower right, upper right, lower left.
            up = neighbour in (0, 4, 6)
            other_row = row - 1 if up else row + 1
            if neighbour in (2, 3):
                other_row = row
            if other_row < 0 or other_row >= depth:
                continue
            upper = min(row, other_row)
            if neighbour < 2:
                weights = graph.vertical[upper]
            elif neighbour < 4:
                weights = graph.horizontal[upper]
            elif neighbour < 6:
                weights = graph.down_right[upper]
            else:
                weights = graph.down_left[upper]
            start, other_start = 0, 0
            if neighbour in (2, 4, 7):
                start = lanes
            elif neighbour >= 3:
                other_start = lanes
            count = width if neighbour < 2 else inner
            _add_flows(
                weights, own[start : start + count], x[other_row, other_start : other_start + count], target[start:]
            )
            if with_magnitude:
                row_magnitude = magnitude[row, start:]
                for k in range(count):
                    row_magnitude[k] += weights[k] * abs(own[start + k] - x[other_row, other_start + k])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_flows(weights: Array, first: Array, second: Array, result: Array) -> None:
    """Add the flows ``w_ij (x_i - x_j)`` along a row of edges."""
    for k in range(len(weights)):
        result[k] += weights[k] * (first[k] - second[k])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _measure(residual: Array, correction: Array, product: Array, largest: Array) -> None:
    """Compute the sum of products and the largest absolute correction of every column, ``(width,)`` each."""
    product[:] = 0.0
    largest[:] = 0.0
    for row in range(len(residual)):
        first, second = residual[row], correction[row]
        for k in range(len(first)):
            product[k] += first[k] * second[k]
            largest[k] = max(largest[k], abs(np.float64(second[k])))


@njit(cache=True, nogil=True, fastmath={"contract"})
def _turn(correction: Array, share: Array, direction: Array) -> None:
    """Compute ``direction = correction + share * direction``."""
    for row in range(len(correction)):
        for k in range(len(share)):
            direction[row, k] = correction[row, k] + share[k] * direction[row, k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _advance(x: Array, direction: Array, residual: Array, product: Array, length: Array) -> None:
    """Compute ``x += length * direction`` and ``residual -= length * product``."""
    for row in range(len(x)):
        for k in range(len(length)):
            x[row, k] += length[k] * direction[row, k]
            residual[row, k] -= length[k] * product[row, k]


def conjugate_gradients(
    graph: RandomWalkGraph,
    rhs: Array,
    factorisation: Factorisation,
    tolerance: float,
    relative: bool,
    max_steps: int,
    usable: Array,
    x: Array,
    buffers: Array,
    workers: Workers,
) -> tuple[Array, Array]:
    """Solve ``A x = b`` by preconditioned conjugate gradients, with 0 as initial solution.

    The preconditioned residual ``z = M^-1 r`` is equal to the error of the solution up to a relative error of about
    1e-6. Its maximum is the error estimate. In the end, ``z`` itself is added to the solution, so the error of the
    returned solution is smaller than the estimate.

    Args:
        graph: Linear systems.
        rhs: Right-hand side ``b``, ``(depth, lateral * lanes)``.
        factorisation: The factorisation of the systems.
        tolerance: Estimated maximum error at which to stop.
        relative: Whether errors are relative to the largest absolute value of the first approximation of the solution.
        max_steps: Maximum number of steps.
        usable: Lanes that are solved, ``(lanes,)``.
        x: Output, solution, float64, ``(depth, lateral * lanes)``.
        buffers: Three buffers, float64, ``(3, depth, lateral * lanes)``.
        workers: Threads.

    Returns:
        Number of steps, and estimated maximum error (relative if this was requested), which is infinite if the method
        failed, ``(lanes,)`` each.
    """
    lanes = factorisation.lanes
    width = x.shape[1]
    residual, direction, product = buffers
    residual[:] = rhs
    direction[:] = 0.0
    x[:] = 0.0
    steps = np.zeros(lanes, np.int64)
    estimates = np.full(lanes, np.inf)
    active = usable.copy()
    previous_rz, error_unit = np.ones(lanes), np.ones(lanes)
    by_column = np.empty((2, width))

    def measure(first: Array, second: Array) -> tuple[Array, Array]:
        _measure(first, second, by_column[0], by_column[1])
        columns = by_column.reshape(2, -1, lanes)
        return columns[0].sum(axis=0), columns[1].max(axis=0)

    def over_columns(values: Array) -> Array:
        return np.tile(values, width // lanes)

    for step in range(max_steps + 1):
        correction = factorisation.solve(residual, workers)
        with np.errstate(all="ignore"):  # lanes that failed
            rz, largest = measure(residual, correction)
            if step == 0 and relative:
                error_unit = np.where(largest > 0.0, largest, 1.0)
            finite = np.isfinite(rz)
            estimates = np.where(active, np.where(finite, largest / error_unit, np.inf), estimates)
            steps[active] = step
            finished = active & finite & (((step > 0) & (estimates <= tolerance)) | (rz <= 0.0))
            if finished.any():
                np.add(x, correction, out=x, where=True if finished.all() else over_columns(finished))
            active &= finite & ~finished
            if step == max_steps or not active.any():
                break
            share = np.where(active & (step > 0), rz / previous_rz, 0.0)
            previous_rz = rz
            _turn(correction, over_columns(share), direction)
            multiply(graph, direction, product, lanes, workers)
            curvature, _ = measure(direction, product)
            failed = active & ~(curvature > 0.0)
            estimates[failed] = np.inf
            active &= ~failed
            length = np.where(active, rz / np.where(active, curvature, 1.0), 0.0)
            _advance(x, direction, residual, product, over_columns(length))
    return steps, estimates


def direct(
    graph: RandomWalkGraph, rhs: Array, factorisation: Factorisation, relative: bool, x: Array, workers: Workers
) -> Array:
    """Solve ``A x = b`` by forward and backward substitution.

    Args:
        graph: Linear systems.
        rhs: Right-hand side ``b``, ``(depth, lateral * lanes)``.
        factorisation: The factorisation of the systems, in float64.
        relative: Whether the error is relative to the largest absolute value of the solution.
        x: Output, solution, float64, ``(depth, lateral * lanes)``.
        workers: Threads.

    Returns:
        Estimated maximum error (relative if this was requested), which is the largest absolute correction that one step
        of iterative refinement would make, ``(lanes,)``.
    """
    lanes = factorisation.lanes
    x[:] = factorisation.solve(rhs, workers)
    residual = np.empty_like(x)
    multiply(graph, x, residual, lanes, workers)
    np.subtract(rhs, residual, out=residual)
    correction = factorisation.solve(residual, workers)
    estimate, largest = (
        np.abs(array).reshape(len(x), -1, lanes).max(axis=(0, 1), initial=0.0) for array in (correction, x)
    )
    unit = np.where(largest > 0.0, largest, 1.0) if relative else 1.0
    return np.asarray(estimate / unit, np.float64)
