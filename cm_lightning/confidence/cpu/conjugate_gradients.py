"""Preconditioned conjugate gradients and direct solution of a linear system, compiled for the CPU, on one thread.

All computations are in float64, except for those with the factor. The preconditioner is the factor from
:mod:`cm_lightning.confidence.cpu.elimination`, which is computed without subtractions, by default in float32. It
approximates every entry of the inverse matrix with a relative error of about 1e-6. Every step of conjugate gradients
therefore reduces the error by about this factor.

References:
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", Journal of Research of the
    National Bureau of Standards 1952.
"""

import numpy as np
from numba import njit

from cm_lightning.confidence.cpu.elimination import Array, substitute
from cm_lightning.confidence.cpu.memory import Factor, Workspace
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.graph import RandomWalkGraph


@njit(cache=True, nogil=True)
def multiply(graph: RandomWalkGraph, x: Array, result: Array, magnitude: Array) -> None:
    """Compute ``(A x)_i = slack_i x_i + sum_j w_ij (x_i - x_j)``, without the diagonal of ``A``.

    Args:
        graph: Linear system of one frame.
        x: Vector, float64, ``(depth, lateral)``, 0 outside the unknown pixels.
        result: Output, ``A x``, ``(depth, lateral)``.
        magnitude: Output, sum of the absolute values of the terms of each entry, ``(depth, lateral)``. It is not
            computed if this array is empty.
    """
    depth, lateral = x.shape
    with_magnitude = magnitude.size > 0
    for row in range(depth):
        for column in range(lateral):
            result[row, column] = graph.slack[row, column] * x[row, column]
        if with_magnitude:
            for column in range(lateral):
                magnitude[row, column] = abs(result[row, column])
    for row in range(depth):
        _add_flows(graph.horizontal[row], x[row, :-1], x[row, 1:], result[row, :-1], result[row, 1:])
        if with_magnitude:
            _add_magnitudes(graph.horizontal[row], x[row, :-1], x[row, 1:], magnitude[row, :-1], magnitude[row, 1:])
        if row + 1 < depth:
            upper, lower = result[row], result[row + 1]
            _add_flows(graph.vertical[row], x[row], x[row + 1], upper, lower)
            _add_flows(graph.down_right[row], x[row, :-1], x[row + 1, 1:], upper[:-1], lower[1:])
            _add_flows(graph.down_left[row], x[row, 1:], x[row + 1, :-1], upper[1:], lower[:-1])
            if with_magnitude:
                upper, lower = magnitude[row], magnitude[row + 1]
                _add_magnitudes(graph.vertical[row], x[row], x[row + 1], upper, lower)
                _add_magnitudes(graph.down_right[row], x[row, :-1], x[row + 1, 1:], upper[:-1], lower[1:])
                _add_magnitudes(graph.down_left[row], x[row, 1:], x[row + 1, :-1], upper[1:], lower[:-1])


@njit(cache=True, nogil=True)
def _add_flows(weights: Array, first: Array, second: Array, first_result: Array, second_result: Array) -> None:
    """Add the flows ``w_ij (x_i - x_j)`` along a row of edges to both ends of the edges."""
    for index in range(len(weights)):
        first_result[index] += weights[index] * (first[index] - second[index])
    for index in range(len(weights)):
        second_result[index] -= weights[index] * (first[index] - second[index])


@njit(cache=True, nogil=True)
def _add_magnitudes(weights: Array, first: Array, second: Array, first_result: Array, second_result: Array) -> None:
    """Add the absolute values of the flows along a row of edges to both ends of the edges."""
    for index in range(len(weights)):
        first_result[index] += weights[index] * abs(first[index] - second[index])
    for index in range(len(weights)):
        second_result[index] += weights[index] * abs(first[index] - second[index])


@njit(cache=True, nogil=True)
def conjugate_gradients(
    graph: RandomWalkGraph,
    rhs: Array,
    plan: Dissection,
    scale: float,
    factor: Factor,
    work: Workspace,
    tolerance: float,
    relative: bool,
    max_steps: int,
    x: Array,
) -> tuple[int, float]:
    """Solve ``A x = b`` by preconditioned conjugate gradients, with 0 as initial solution.

    The preconditioned residual ``z = M^-1 r`` is equal to the error of the solution up to a relative error of about
    1e-6. Its maximum is the error estimate, and it is added to the solution after the last step.

    Args:
        graph: Linear system of one frame.
        rhs: Right-hand side ``b``, ``(depth, lateral)``.
        plan: Dissection of the grid.
        scale: Factor of all weights in :func:`cm_lightning.confidence.cpu.elimination.factorise`.
        factor: Factor from this function.
        work: Buffers of the thread.
        tolerance: Estimated maximum error at which to stop.
        relative: Whether errors are relative to the largest absolute value of the first approximation of the solution.
        max_steps: Maximum number of steps.
        x: Output, solution, float64, ``(depth, lateral)``.

    Returns:
        Number of steps, and estimated maximum error, which is infinite if the method failed.
    """
    depth, lateral = x.shape
    residual = rhs.copy()
    direction = np.zeros_like(x)
    product = np.empty_like(x)
    no_magnitude = np.empty((0, 0))
    x[:] = 0.0
    previous_rz = 1.0
    error_unit = 1.0
    estimate = np.inf
    for step in range(max_steps + 1):
        substitute(residual.ravel(), plan, scale, factor, work, depth, lateral)
        correction = work.solution.reshape(depth, lateral)
        estimate = 0.0
        rz = 0.0
        for row in range(depth):
            for column in range(lateral):
                estimate = max(estimate, abs(correction[row, column]))
                rz += residual[row, column] * correction[row, column]
        if not np.isfinite(rz):
            return step, np.inf
        if step == 0:
            error_unit = estimate if relative and estimate > 0.0 else 1.0
        estimate /= error_unit
        if (step > 0 and estimate <= tolerance) or rz <= 0.0:
            for row in range(depth):
                for column in range(lateral):
                    x[row, column] += correction[row, column]
            return step, estimate
        if step == max_steps:
            break
        beta = rz / previous_rz if step > 0 else 0.0
        previous_rz = rz
        for row in range(depth):
            for column in range(lateral):
                direction[row, column] = correction[row, column] + beta * direction[row, column]
        multiply(graph, direction, product, no_magnitude)
        curvature = 0.0
        for row in range(depth):
            for column in range(lateral):
                curvature += direction[row, column] * product[row, column]
        if not curvature > 0.0:
            return step, np.inf
        step_length = rz / curvature
        for row in range(depth):
            for column in range(lateral):
                x[row, column] += step_length * direction[row, column]
                residual[row, column] -= step_length * product[row, column]
    return max_steps, estimate


@njit(cache=True, nogil=True)
def direct(
    graph: RandomWalkGraph,
    rhs: Array,
    plan: Dissection,
    scale: float,
    factor: Factor,
    work: Workspace,
    relative: bool,
    x: Array,
) -> float:
    """Solve ``A x = b`` by forward and backward substitution.

    Args:
        graph: Linear system of one frame.
        rhs: Right-hand side ``b``, ``(depth, lateral)``.
        plan: Dissection of the grid.
        scale: Factor of all weights in :func:`cm_lightning.confidence.cpu.elimination.factorise`.
        factor: Factor from this function, float64.
        work: Buffers of the thread.
        relative: Whether the error is relative to the largest absolute value of the solution.
        x: Output, solution, float64, ``(depth, lateral)``.

    Returns:
        Estimated maximum error, which is the largest absolute correction that one step of iterative refinement
        would make.
    """
    depth, lateral = x.shape
    substitute(rhs.ravel(), plan, scale, factor, work, depth, lateral)
    x[:] = work.solution.reshape(depth, lateral)
    residual = np.empty_like(x)
    multiply(graph, x, residual, np.empty((0, 0)))
    for row in range(depth):
        for column in range(lateral):
            residual[row, column] = rhs[row, column] - residual[row, column]
    substitute(residual.ravel(), plan, scale, factor, work, depth, lateral)
    estimate = 0.0
    for pixel in range(len(work.solution)):
        estimate = max(estimate, abs(work.solution[pixel]))
    largest = np.abs(x).max()
    return estimate / largest if relative and largest > 0.0 else estimate
