"""Conjugate gradients, direct solution and error bounds in float64, for many frames at once.

The methods are those of :mod:`cm_lightning.confidence.cpu.conjugate_gradients`. Frames that have converged do not
change while others continue. Kernels compute sums over the pixels of a frame in an order that does not depend on the
batch, and maxima do not depend on the order.
"""

from typing import NamedTuple

import numpy as np

from cm_lightning.confidence.accuracy import MAX_STEPS, STOPPING_FRACTION
from cm_lightning.confidence.certificate import certify
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.factor import BatchFactor, graph_arguments
from cm_lightning.confidence.cuda.memory import PIXELS_PER_BLOCK
from cm_lightning.confidence.cuda.systems import THREADS, Batch

# These must equal the constants in kernels.cu.
STATE_FIELDS, ESTIMATE = 5, 1
CONVERGED, BROKEN = 1, 2


class BatchSolution(NamedTuple):
    """Solutions for several frames, with arrays on the device.

    Attributes:
        values: Solutions, float64, ``(frames, depth, lateral)``, 0 outside the unknown pixels.
        iterations: Numbers of steps of conjugate gradients, ``(frames,)``.
        error_estimate: Estimated maximum errors, ``(frames,)``; infinite if the method failed.
    """

    values: Array
    iterations: Array
    error_estimate: Array


class BatchSystem:
    """Linear systems of several frames with their factors.

    Args:
        device: The device.
        batch: Linear systems on the device.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solver.
    """

    def __init__(self, device: Device, batch: Batch, precision: Precision) -> None:
        self._xp = device.xp
        self._launch = device.kernels(precision)
        self._batch = batch
        self._graph = batch.graph
        self._frames, depth, lateral = batch.graph.slack.shape
        self._shape = (self._frames, depth, lateral)
        self._pixels = depth * lateral
        self._blocks = -(-self._pixels // PIXELS_PER_BLOCK)
        self._grid = (self._blocks, 1, self._frames)
        self._factor = BatchFactor(device, batch.graph, precision, batch.arena)
        self._all = batch.arena.zeros((self._frames,), np.int32)  # no frame is skipped

    def _multiply(self, x: Array, product: Array, skipped: Array, magnitude: Array = 0, parts: Array = 0) -> None:
        """Compute ``A x``; see ``multiply`` in kernels.cu."""
        arguments = (*graph_arguments(self._graph), skipped, x, product, magnitude, parts)
        self._launch("multiply", self._grid, (THREADS,), *arguments)

    def conjugate_gradients(self, tolerance: float, rhs: Array | None = None) -> BatchSolution:
        """Solve by preconditioned conjugate gradients, starting from 0.

        Args:
            tolerance: Maximum error, absolute or relative as described for ``rhs``.
            rhs: Right-hand sides, ``(frames, depth, lateral)``; by default those of the graph. Errors are absolute for
                the default. For given right-hand sides, they are relative to the largest absolute value of the first
                approximation of the solution.

        Returns:
            The solutions, with the numbers of steps and the estimated errors.
        """
        xp, launch, arena = self._xp, self._launch, self._batch.arena
        stop_at = STOPPING_FRACTION * tolerance
        residual, product = arena.take(self._shape), arena.take(self._shape)
        residual[...] = self._graph.rhs if rhs is None else rhs
        x, direction = arena.zeros(self._shape), arena.zeros(self._shape)
        dots, largest = (arena.take((self._frames, self._blocks)) for _ in range(2))
        state = arena.zeros((self._frames, STATE_FIELDS))
        skipped = self._factor.underflowed.astype(np.int32) * BROKEN
        steps = xp.zeros(self._frames, np.int32)
        blocks, one_each = (THREADS,), (1, 1, self._frames)
        for step in range(MAX_STEPS + 1):
            correction = self._factor.substitute(residual, skipped)
            launch("measure_correction", self._grid, blocks, self._pixels, skipped, residual, correction, dots, largest)
            convergence = (self._blocks, dots, largest, step, stop_at, int(rhs is not None), state, skipped, steps)
            launch("check_convergence", one_each, blocks, *convergence)
            direction_arguments = (self._pixels, step, state, skipped, steps, correction, direction, x)
            launch("update_direction", self._grid, blocks, *direction_arguments)
            # This is the only synchronisation of a step. In the first step, only frames with the solution 0 stop.
            if step == MAX_STEPS or (step > 0 and bool(skipped.all())):
                break
            self._multiply(direction, product, skipped, parts=dots)
            launch("measure_step", one_each, blocks, self._blocks, dots, state, skipped)
            launch("take_step", self._grid, blocks, self._pixels, state, skipped, direction, product, x, residual)
        estimate = xp.where(skipped == BROKEN, np.inf, state[:, ESTIMATE])
        return BatchSolution(x, steps, estimate)

    def direct(self, rhs: Array | None = None) -> BatchSolution:
        """Solve by forward and backward substitution with the factor.

        The error estimate is the largest absolute correction that one step of iterative refinement would make.

        Args:
            rhs: Right-hand sides, ``(frames, depth, lateral)``; by default those of the graph. Error estimates are
                absolute for the default, and relative to the largest absolute value of the solution for given
                right-hand sides.

        Returns:
            The solutions, with their estimated errors and 0 steps of conjugate gradients.
        """
        xp, arena = self._xp, self._batch.arena
        right_side = self._graph.rhs if rhs is None else rhs
        x, residual = arena.take(self._shape), arena.take(self._shape)
        x[...] = self._factor.substitute(right_side, self._all)
        self._multiply(x, residual, self._all)
        xp.subtract(right_side, residual, out=residual)
        estimate = xp.abs(self._factor.substitute(residual, self._all)).max(axis=(1, 2)).astype(np.float64)
        if rhs is not None:
            largest = xp.abs(x).max(axis=(1, 2))
            estimate /= xp.where(largest > 0.0, largest, 1.0)
        underflowed = self._factor.underflowed > 0
        return BatchSolution(
            xp.where(underflowed[:, None, None], 0.0, x),
            xp.zeros(self._frames, np.int32),
            xp.where(underflowed, np.inf, estimate),
        )

    def store(self, x: Array, maps: Array) -> None:
        """Write solutions and known values to the maps of all frames.

        Args:
            x: Solutions, float64, ``(frames, depth, lateral)``.
            maps: Output on the device: maps from 0 to 1, float32 or float64, ``(all frames, depth, lateral)``.
        """
        batch = self._batch
        name = "store_double_maps" if maps.dtype == np.float64 else "store_float_maps"
        arguments = (x, batch.kinds, batch.table, *self._shape[1:], maps, *batch.rectangle_arguments(maps.shape))
        self._launch(name, self._grid, (THREADS,), *arguments)

    def propagate(self, adjoint: Array, maps: Array, gradients: Array) -> None:
        """Propagate a gradient from maps to intensities, for a fixed scale of intensities.

        Args:
            adjoint: Solutions for the gradients with respect to the maps, float64, ``(frames, depth, lateral)``.
            maps: Confidence maps, float64, ``(all frames, depth, lateral)``.
            gradients: Output on the device: gradients with respect to the intensities, with the type and shape of
                ``maps``.
        """
        batch = self._batch
        self._launch(
            "propagate_gradients",
            self._grid,
            (THREADS,),
            *(batch.image, batch.kinds, batch.table, *self._shape[1:], batch.decay, batch.scales),
            *(adjoint, maps, gradients, *batch.rectangle_arguments(maps.shape)),
        )

    def certify(self, x: Array) -> Array:
        """Compute upper bounds of the maximum errors of solutions, including rounding errors.

        Args:
            x: Solutions, float64, ``(frames, depth, lateral)``.

        Returns:
            Upper bounds of ``max |x - x_exact|``, ``(frames,)``; infinite if no bound was found.
        """

        def multiply(x: Array, product: Array, magnitude: Array, skipped: Array) -> None:
            self._multiply(x, product, skipped, magnitude)

        underflowed = self._factor.underflowed.astype(np.int32)
        graph = self._graph._replace(unknown=self._graph.unknown.astype(bool))
        return certify(graph, graph.rhs, x, multiply, self._factor.substitute, underflowed)
