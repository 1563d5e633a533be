"""Preconditioned conjugate gradients and the direct solve: compiled for the CPU, one frame and one thread at a time.

Everything here is in float64. The preconditioner is the subtraction-free factor of
:mod:`cm_lightning.confidence.cpu.elimination`, in float32 by default: it approximates the inverse of the matrix entry
by entry to some 1e-6, so that a single step reaches that, and every further step gains as much again.
"""

import numpy as np
from numba import njit

from cm_lightning.confidence.cpu.elimination import Numbers, substitute
from cm_lightning.confidence.cpu.memory import Factor, Workspace
from cm_lightning.confidence.dissection import Dissection
from cm_lightning.confidence.graph import RandomWalkGraph


@njit(cache=True, nogil=True)
def multiply(graph: RandomWalkGraph, x: Numbers, result: Numbers, magnitude: Numbers) -> None:
    """Compute ``A x`` without ever forming a diagonal: ``slack_i x_i + sum_j w_ij (x_i - x_j)``.

    Args:
        graph: The :class:`cm_lightning.confidence.graph.RandomWalkGraph` of one frame.
        x: ``(depth, lateral)``, float64, 0 outside the unknown pixels.
        result: Filled with ``A x``, same shape.
        magnitude: Filled with the sum of the magnitudes of each entry's terms; an empty array where not wanted.
    """
    depth, lateral = x.shape
    wanted = magnitude.size > 0
    for row in range(depth):
        for column in range(lateral):
            result[row, column] = graph.slack[row, column] * x[row, column]
        if wanted:
            for column in range(lateral):
                magnitude[row, column] = abs(result[row, column])
    for row in range(depth):
        _add_flows(graph.horizontal[row], x[row, :-1], x[row, 1:], result[row, :-1], result[row, 1:])
        if wanted:
            _add_magnitudes(graph.horizontal[row], x[row, :-1], x[row, 1:], magnitude[row, :-1], magnitude[row, 1:])
        if row + 1 < depth:
            up, down = result[row], result[row + 1]
            _add_flows(graph.vertical[row], x[row], x[row + 1], up, down)
            _add_flows(graph.down_right[row], x[row, :-1], x[row + 1, 1:], up[:-1], down[1:])
            _add_flows(graph.down_left[row], x[row, 1:], x[row + 1, :-1], up[1:], down[:-1])
            if wanted:
                up, down = magnitude[row], magnitude[row + 1]
                _add_magnitudes(graph.vertical[row], x[row], x[row + 1], up, down)
                _add_magnitudes(graph.down_right[row], x[row, :-1], x[row + 1, 1:], up[:-1], down[1:])
                _add_magnitudes(graph.down_left[row], x[row, 1:], x[row + 1, :-1], up[1:], down[:-1])


@njit(cache=True, nogil=True)
def _add_flows(weights: Numbers, first: Numbers, second: Numbers, into_first: Numbers, into_second: Numbers) -> None:
    """Add what flows along a row of edges to both of their ends."""
    for index in range(len(weights)):
        into_first[index] += weights[index] * (first[index] - second[index])
    for index in range(len(weights)):
        into_second[index] -= weights[index] * (first[index] - second[index])


@njit(cache=True, nogil=True)
def _add_magnitudes(
    weights: Numbers, first: Numbers, second: Numbers, into_first: Numbers, into_second: Numbers
) -> None:
    """Add the magnitudes of what flows."""
    for index in range(len(weights)):
        into_first[index] += weights[index] * abs(first[index] - second[index])
    for index in range(len(weights)):
        into_second[index] += weights[index] * abs(first[index] - second[index])


@njit(cache=True, nogil=True)
def conjugate_gradients(
    graph: RandomWalkGraph,
    right: Numbers,
    plan: Dissection,
    scale: float,
    factor: Factor,
    work: Workspace,
    tolerance: float,
    relative: bool,
    most: int,
    x: Numbers,
) -> tuple[int, float]:
    """Solve ``A x = b`` by preconditioned conjugate gradients, starting from 0.

    With this preconditioner ``z = M^-1 r`` is the error that is left, up to a relative 1e-6; it is the estimate, and in
    the end it is added.

    Args:
        graph: The system.
        right: ``b``, ``(depth, lateral)``.
        plan: Of the grid.
        scale: As given to :func:`cm_lightning.confidence.cpu.elimination.factorise`.
        factor: From there.
        work: Of the thread.
        tolerance: Estimated largest error at which to stop.
        relative: Whether errors are meant relative to the solution's largest entry.
        most: Steps after which to give up.
        x: Filled with the solution, ``(depth, lateral)``, float64.

    Returns:
        Number of steps and the estimated largest error, infinite where the method broke down.
    """
    depth, lateral = x.shape
    residual = right.copy()
    direction = np.zeros_like(x)
    product = np.empty_like(x)
    nothing = np.empty((0, 0))
    x[:] = 0.0
    before = 1.0
    unit = 1.0
    estimate = np.inf
    for step in range(most + 1):
        substitute(residual.ravel(), plan, scale, factor, work, depth, lateral)
        correction = work.solution.reshape(depth, lateral)
        estimate = 0.0
        now = 0.0
        for row in range(depth):
            for column in range(lateral):
                estimate = max(estimate, abs(correction[row, column]))
                now += residual[row, column] * correction[row, column]
        if not np.isfinite(now):
            return step, np.inf
        if step == 0:
            unit = estimate if relative and estimate > 0.0 else 1.0
        estimate /= unit
        if (step > 0 and estimate <= tolerance) or now <= 0.0:
            for row in range(depth):
                for column in range(lateral):
                    x[row, column] += correction[row, column]
            return step, estimate
        if step == most:
            break
        keep = now / before if step > 0 else 0.0
        before = now
        for row in range(depth):
            for column in range(lateral):
                direction[row, column] = correction[row, column] + keep * direction[row, column]
        multiply(graph, direction, product, nothing)
        curvature = 0.0
        for row in range(depth):
            for column in range(lateral):
                curvature += direction[row, column] * product[row, column]
        if not curvature > 0.0:
            return step, np.inf
        length = now / curvature
        for row in range(depth):
            for column in range(lateral):
                x[row, column] += length * direction[row, column]
                residual[row, column] -= length * product[row, column]
    return most, estimate


@njit(cache=True, nogil=True)
def direct(
    graph: RandomWalkGraph,
    right: Numbers,
    plan: Dissection,
    scale: float,
    factor: Factor,
    work: Workspace,
    relative: bool,
    x: Numbers,
) -> float:
    """Solve ``A x = b`` by substitution alone.

    Args:
        graph: The system.
        right: ``b``, ``(depth, lateral)``.
        plan: Of the grid.
        scale: As given to :func:`cm_lightning.confidence.cpu.elimination.factorise`.
        factor: From there, in float64.
        work: Of the thread.
        relative: Whether the error is meant relative to the solution's largest entry.
        x: Filled with the solution, ``(depth, lateral)``, float64.

    Returns:
        The estimated largest error: what one step of refinement would add.
    """
    depth, lateral = x.shape
    substitute(right.ravel(), plan, scale, factor, work, depth, lateral)
    x[:] = work.solution.reshape(depth, lateral)
    residual = np.empty_like(x)
    multiply(graph, x, residual, np.empty((0, 0)))
    for row in range(depth):
        for column in range(lateral):
            residual[row, column] = right[row, column] - residual[row, column]
    substitute(residual.ravel(), plan, scale, factor, work, depth, lateral)
    estimate = 0.0
    for pixel in range(len(work.solution)):
        estimate = max(estimate, abs(work.solution[pixel]))
    largest = np.abs(x).max()
    return estimate / largest if relative and largest > 0.0 else estimate
