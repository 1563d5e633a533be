"""Conjugate gradients, the direct solve and the error bound for many frames at a time, in float64.

The methods are those of :mod:`cm_lightning.confidence.cpu.conjugate_gradients`. A frame that is done is left as it is
while others go on. Sums over a frame's pixels are taken by kernels, in an order that is the same in every batch; maxima
depend on no order.
"""

from typing import NamedTuple

import numpy as np

from cm_lightning.confidence.accuracy import MOST_STEPS, STOPPING_SHARE
from cm_lightning.confidence.certificate import certify
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.factor import BatchFactor, graph_arguments
from cm_lightning.confidence.graph import RandomWalkGraph

# As in kernels.cu.
THREADS = 256
PIXELS_A_BLOCK = 1024
STATE_FIELDS, ESTIMATE = 5, 1
CONVERGED, BROKEN = 1, 2


class BatchSolution(NamedTuple):
    """Solutions of several frames; arrays on the device.

    Attributes:
        values: float64, ``(frames, depth, lateral)``, 0 outside the unknown pixels.
        iterations: Steps of conjugate gradients, ``(frames,)``.
        error_estimate: Estimated largest error, ``(frames,)``; infinite where the method broke down.
    """

    values: Array
    iterations: Array
    error_estimate: Array


class BatchSystem:
    """Systems of several frames with their factor.

    Args:
        device: Where to compute.
        graph: The systems, ``(frames, depth, lateral)``, on the device and C-contiguous.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solve.
    """

    def __init__(self, device: Device, graph: RandomWalkGraph, precision: Precision) -> None:
        self._xp = device.xp
        self._launch = device.kernels(precision)
        self._graph = graph
        self._frames, depth, lateral = graph.slack.shape
        self._pixels = depth * lateral
        self._blocks = -(-self._pixels // PIXELS_A_BLOCK)
        self._grid = (self._blocks, 1, self._frames)
        self._factor = BatchFactor(device, graph, precision)
        self._all = device.xp.zeros(self._frames, np.int32)  # no frame is left out

    def _multiply(self, x: Array, product: Array, stopped: Array, magnitude: Array = 0, parts: Array = 0) -> None:
        """Compute ``A x``; see ``multiply`` in kernels.cu."""
        arguments = (*graph_arguments(self._graph), stopped, x, product, magnitude, parts)
        self._launch("multiply", self._grid, (THREADS,), *arguments)

    def conjugate_gradients(self, tolerance: float, right: Array | None = None) -> BatchSolution:
        """Solve by preconditioned conjugate gradients, starting from 0.

        Args:
            tolerance: Largest error to be reached.
            right: Another right-hand side than the graph's own; errors then are relative to the largest entry of the
                solution.

        Returns:
            The solutions.
        """
        xp, launch = self._xp, self._launch
        stop_at = STOPPING_SHARE * tolerance
        residual = (self._graph.right if right is None else right).copy()
        x, direction, product = xp.zeros_like(residual), xp.zeros_like(residual), xp.empty_like(residual)
        dots, largest = xp.empty((2, self._frames, self._blocks))
        state = xp.zeros((self._frames, STATE_FIELDS))
        stopped = self._factor.lost.astype(np.int32) * BROKEN
        steps = xp.zeros(self._frames, np.int32)
        blocks, one_each = (THREADS,), (1, 1, self._frames)
        for step in range(MOST_STEPS + 1):
            correction = self._factor.substitute(residual, stopped)
            launch("measure_correction", self._grid, blocks, self._pixels, stopped, residual, correction, dots, largest)
            judged = (self._blocks, dots, largest, step, stop_at, int(right is not None), state, stopped, steps)
            launch("check_convergence", one_each, blocks, *judged)
            turned = (self._pixels, step, state, stopped, steps, correction, direction, x)
            launch("update_direction", self._grid, blocks, *turned)
            # The only synchronisation of a step; no frame stops in the first, unless its solution is 0.
            if step == MOST_STEPS or (step > 0 and bool(stopped.all())):
                break
            self._multiply(direction, product, stopped, parts=dots)
            launch("measure_step", one_each, blocks, self._blocks, dots, state, stopped)
            launch("take_step", self._grid, blocks, self._pixels, state, stopped, direction, product, x, residual)
        estimate = xp.where(stopped == BROKEN, np.inf, state[:, ESTIMATE])
        return BatchSolution(x, steps, estimate)

    def direct(self, right: Array | None = None) -> BatchSolution:
        """Solve by substitution alone; the error estimate is what one step of refinement would add.

        Args:
            right: Another right-hand side than the graph's own; errors then are relative to the largest entry of the
                solution.

        Returns:
            The solutions.
        """
        xp = self._xp
        given = self._graph.right if right is None else right
        x = self._factor.substitute(given, self._all).astype(np.float64)
        residual = xp.empty_like(x)
        self._multiply(x, residual, self._all)
        xp.subtract(given, residual, out=residual)
        estimate = xp.abs(self._factor.substitute(residual, self._all)).max(axis=(1, 2)).astype(np.float64)
        if right is not None:
            largest = xp.abs(x).max(axis=(1, 2))
            estimate /= xp.where(largest > 0.0, largest, 1.0)
        lost = self._factor.lost > 0
        return BatchSolution(
            xp.where(lost[:, None, None], 0.0, x),
            xp.zeros(self._frames, np.int32),
            xp.where(lost, np.inf, estimate),
        )

    def certify(self, x: Array) -> Array:
        """Bound the largest error of solutions, rounding included.

        Args:
            x: The solutions, float64, ``(frames, depth, lateral)``.

        Returns:
            The bound on ``max |x - x_exact|`` of every frame, ``(frames,)``; infinite where none could be proven.
        """

        def multiply(x: Array, product: Array, magnitude: Array, settled: Array) -> None:
            self._multiply(x, product, settled, magnitude)

        lost = self._factor.lost.astype(np.int32)
        return certify(self._graph, self._graph.right, x, multiply, self._factor.substitute, lost)
