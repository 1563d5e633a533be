"""Conjugate gradients, direct solution and error bounds in float64, for many frames at once.

The methods are those of :mod:`cm_lightning.confidence.cpu.conjugate_gradients`. Frames that have converged do not
change while others continue. Kernels compute sums over the pixels of a frame in an order that does not depend on the
batch, and maxima do not depend on the order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import MAX_STEPS, STOPPING_FRACTION
from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.boundary import BoolArray
from cm_lightning.confidence.certificate import certify
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.factor import BatchFactor, graph_arguments
from cm_lightning.confidence.cuda.memory import PIXELS_PER_BLOCK
from cm_lightning.confidence.cuda.systems import THREADS, Batch

# These must equal the constants in kernels.cu.
STATE_FIELDS, ITERATIONS, ESTIMATE, CONTAINS_INVALID = 7, 0, 1, 2
FAILED = -1.0


class BatchSolution(NamedTuple):
    """Solutions for several frames, with arrays on the device.

    Attributes:
        values: Solutions, float64, ``(frames, depth, lateral)``, 0 outside the unknown pixels.
        facts: For each frame, the number of steps of conjugate gradients, the estimated maximum error (FAILED if there
            is no solution), and whether it contains NaN or infinity, float64, ``(frames, 3)``.
    """

    values: Array
    facts: Array

    def report(self) -> tuple[NDArray[np.int64], NDArray[np.float64], BoolArray]:
        """Wait for the solutions, and copy what is known about them to the CPU.

        Returns:
            Numbers of steps, estimated maximum errors (infinite if there is no solution), and which frames are finite,
            ``(frames,)`` each.
        """
        facts = np.asarray(to_numpy(self.facts), np.float64)
        estimates = np.where(facts[:, ESTIMATE] == FAILED, np.inf, facts[:, ESTIMATE])
        return facts[:, ITERATIONS].astype(np.int64), estimates, facts[:, CONTAINS_INVALID] == 0.0


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
        self._factor = BatchFactor(device, batch.graph, precision, batch.arena, batch.underflowed)

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
        launch, batch, arena = self._launch, self._batch, self._batch.arena
        stop_at = STOPPING_FRACTION * tolerance
        previous = self._graph.rhs if rhs is None else rhs
        x, direction, product, residual = (arena.take(self._shape) for _ in range(4))
        dots, largest = (arena.take((self._frames, self._blocks)) for _ in range(2))
        state, status = arena.take((self._frames, STATE_FIELDS)), arena.take((self._frames,), np.int32)
        grid, block, one_each = self._grid, (THREADS,), (1, 1, self._frames)
        skipped = batch.underflowed
        for step in range(MAX_STEPS + 1):
            correction = self._factor.substitute(previous, skipped)
            launch("measure_correction", grid, block, self._pixels, skipped, previous, correction, dots, largest)
            limits = (step, stop_at, int(rhs is not None))
            flags = (batch.invalid, batch.underflowed)
            launch("check_convergence", one_each, block, self._blocks, dots, largest, *limits, *flags, state, status)
            skipped = status
            launch("update_direction", grid, block, self._pixels, step, state, status, correction, direction, x)
            # This is the only synchronisation of a step. In the first step, only frames with the solution 0 stop.
            if step == MAX_STEPS or (step > 0 and bool(to_numpy(status).all())):
                break
            self._multiply(direction, product, status, parts=dots)
            launch("measure_step", one_each, block, self._blocks, dots, state, status)
            launch("take_step", grid, block, self._pixels, state, status, direction, product, previous, x, residual)
            previous = residual
        return BatchSolution(x, state[:, : CONTAINS_INVALID + 1])

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
        xp, batch = self._xp, self._batch
        right_side = self._graph.rhs if rhs is None else rhs
        x, residual = batch.arena.take(self._shape), batch.arena.take(self._shape)
        x[...] = self._factor.substitute(right_side, batch.no_skips)
        self._multiply(x, residual, batch.no_skips)
        xp.subtract(right_side, residual, out=residual)
        estimate = xp.abs(self._factor.substitute(residual, batch.no_skips)).max(axis=(1, 2)).astype(np.float64)
        if rhs is not None:
            largest = xp.abs(x).max(axis=(1, 2))
            estimate /= xp.where(largest > 0.0, largest, 1.0)
        underflowed = batch.underflowed > 0
        values = xp.where(underflowed[:, None, None], 0.0, x)
        estimate = xp.where(underflowed, FAILED, estimate)
        facts = xp.stack([xp.zeros_like(estimate), estimate, batch.invalid.astype(np.float64)], axis=1)
        return BatchSolution(values, facts)

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

        graph = self._graph._replace(unknown=self._graph.unknown.astype(bool))
        return certify(graph, graph.rhs, x, multiply, self._factor.substitute, self._batch.underflowed)
