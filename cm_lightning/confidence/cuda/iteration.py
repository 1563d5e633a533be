"""Conjugate gradients, the direct solve and the error bound for many frames at a time, in float64.

Each is that of :mod:`cm_lightning.confidence.cpu.conjugate_gradients`. A frame that is done is left as it is while
others go on. Sums over a frame's pixels are taken by kernels, in an order that is the same in every batch; maxima
depend on no order.
"""

from typing import NamedTuple

import numpy as np

from cm_lightning.confidence.cpu.conjugate_gradients import ROUNDING
from cm_lightning.confidence.cpu.solver import MOST_STEPS
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.factor import BatchFactor, network_arguments
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.weights import EDGE_ENDS

# As in kernels.cu.
THREADS = 256
PIXELS_A_BLOCK = 1024
STATE_FIELDS, ESTIMATE = 5, 1
CONVERGED, BROKEN = 1, 2
# Steps of refinement of the vector that proves the bound.
MOST_REFINEMENTS = 6


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
        network: The systems, ``(frames, depth, lateral)``, on the device and C-contiguous.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solve.
    """

    def __init__(self, device: Device, network: Network, precision: Precision) -> None:
        self._xp = device.xp
        self._launch = device.kernels(precision)
        self._network = network
        self._frames, depth, lateral = network.slack.shape
        self._pixels = depth * lateral
        self._blocks = -(-self._pixels // PIXELS_A_BLOCK)
        self._grid = (self._blocks, 1, self._frames)
        self._factor = BatchFactor(device, network, precision)
        self._all = device.xp.zeros(self._frames, np.int32)  # no frame is left out

    def _multiply(self, x: Array, product: Array, stopped: Array, magnitude: Array = 0, parts: Array = 0) -> None:
        """Compute ``A x``; see ``multiply`` in kernels.cu."""
        arguments = (*network_arguments(self._network), stopped, x, product, magnitude, parts)
        self._launch("multiply", self._grid, (THREADS,), *arguments)

    def conjugate_gradients(self, tolerance: float, right: Array | None = None) -> BatchSolution:
        """Solve by preconditioned conjugate gradients, starting from 0.

        Args:
            tolerance: Estimated largest error at which to stop.
            right: Another right-hand side than the network's own; errors then are relative to the largest entry of the
                solution.

        Returns:
            The solutions.
        """
        xp, launch = self._xp, self._launch
        residual = (self._network.right if right is None else right).copy()
        x, direction, product = xp.zeros_like(residual), xp.zeros_like(residual), xp.empty_like(residual)
        dots, largest = xp.empty((2, self._frames, self._blocks))
        state = xp.zeros((self._frames, STATE_FIELDS))
        stopped = self._factor.lost.astype(np.int32) * BROKEN
        steps = xp.zeros(self._frames, np.int32)
        blocks, one_each = (THREADS,), (1, 1, self._frames)
        for step in range(MOST_STEPS + 1):
            correction = self._factor.substitute(residual, stopped)
            launch("measure", self._grid, blocks, self._pixels, stopped, residual, correction, dots, largest)
            judged = (self._blocks, dots, largest, step, tolerance, int(right is not None), state, stopped, steps)
            launch("judge", one_each, blocks, *judged)
            turned = (self._pixels, step, state, stopped, steps, correction, direction, x)
            launch("turn", self._grid, blocks, *turned)
            # The only synchronisation of a step; no frame stops in the first, unless its solution is 0.
            if step == MOST_STEPS or (step > 0 and bool(stopped.all())):
                break
            self._multiply(direction, product, stopped, parts=dots)
            launch("measure_step", one_each, blocks, self._blocks, dots, state, stopped)
            launch("go", self._grid, blocks, self._pixels, state, stopped, direction, product, x, residual)
        estimate = xp.where(stopped == BROKEN, np.inf, state[:, ESTIMATE])
        return BatchSolution(x, steps, estimate)

    def direct(self, right: Array | None = None) -> BatchSolution:
        """Solve by substitution alone; the error estimate is what one step of refinement would add.

        Args:
            right: Another right-hand side than the network's own; errors then are relative to the largest entry of the
                solution.

        Returns:
            The solutions.
        """
        xp = self._xp
        given = self._network.right if right is None else right
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
        xp, network = self._xp, self._network
        product, magnitude = xp.empty_like(x), xp.empty_like(x)
        self._multiply(x, product, self._all, magnitude)
        target = xp.abs(network.right - product) + ROUNDING * (magnitude + xp.abs(network.right))
        target += 1e-17 * _diagonal(xp, network)  # keeps v positive where the residual is exactly 0
        v, lacking = xp.zeros_like(x), target.copy()
        ratio = xp.full(self._frames, np.inf)
        settled = self._factor.lost.astype(np.int32)
        for _ in range(MOST_REFINEMENTS):
            going_on = (settled == 0)[:, None, None]
            v += xp.where(going_on, self._factor.substitute(lacking, settled), 0.0)
            self._multiply(v, product, settled, magnitude)
            at_least = product - ROUNDING * magnitude
            proven = (at_least > 0.0) & (v > 0.0)
            shares = xp.where(proven, target / xp.where(proven, at_least, 1.0), np.inf)
            found = xp.where(network.unknown, shares, 0.0).max(axis=(1, 2))
            ratio = xp.where(settled > 0, ratio, found)
            settled = ((settled > 0) | (ratio <= 2.0)).astype(np.int32)
            if bool(settled.all()):
                break
            # Where the residual is all but 0, A v must still stand out from its own rounding.
            target += xp.where((settled == 0)[:, None, None], 100.0 * ROUNDING * magnitude, 0.0)
            xp.subtract(target, product, out=lacking)
        bound = xp.where(ratio > 0.0, ratio * v.max(axis=(1, 2)) * (1.0 + 1e-12), 0.0)
        return xp.where(xp.isfinite(bound), bound, np.inf)


def _diagonal(xp: Array, network: Network) -> Array:
    """Sum up the diagonals of the matrices."""
    diagonal = network.slack.copy()
    for name, ends in EDGE_ENDS.items():
        for end in ends:
            diagonal[end] += getattr(network, name)
    return diagonal
