"""The solution of one frame's equations after the other in one thread, which keeps its memory from one to the next."""

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.compilation import compile_once
from cm_lightning.confidence.cpu.conjugate_gradients import certify, conjugate_gradients, direct
from cm_lightning.confidence.cpu.elimination import factorise
from cm_lightning.confidence.cpu.memory import Factor, Workspace, make_factor, make_workspace
from cm_lightning.confidence.dissection import Dissection, dissect
from cm_lightning.confidence.network import Network
from cm_lightning.confidence.problem import Method

FloatArray = NDArray[np.float64]

# Weights are multiplied by this in float32: they are at most 1, so that the upper half of float32's range
# would go unused.
SCALE = {np.float32: 2.0**96, np.float64: 1.0}
# With this preconditioner one or two steps are the rule; after so many something is wrong with it.
MOST_STEPS = 20
# Where the smallest weight is a smaller share of the largest, no residual in float64 can tell a right map from a wrong
# one: what is rounded within a cluster of pixels outweighs all that flows into it. Such a frame (only the paper's
# formulation has them) is eliminated in float64, which does not notice contrast, and once more in mirrored order; the
# difference is the error estimate.
LEAST_CONTRAST = 1e-9


@dataclass(frozen=True)
class Solution:
    """What solving one system gave.

    Attributes:
        values: The solution, float64, 0 outside the unknown pixels.
        iterations: Steps of conjugate gradients.
        error_estimate: Estimated largest error.
        error_bound: Proven largest error; NaN if not asked for.
        fallback: Whether conjugate gradients did not get there and the direct solve stepped in.
    """

    values: FloatArray
    iterations: int
    error_estimate: float
    error_bound: float
    fallback: bool


class _Buffers:
    """Memory of one thread for frames of one shape."""

    def __init__(self, dissection: Dissection, dtype: type[np.floating]) -> None:
        self.factor: Factor = make_factor(dissection, dtype)
        self.work: Workspace = make_workspace(dissection, dtype)


class CompiledSolver:
    """Solve networks of one shape, in one thread; keeps its memory from one to the next.

    Args:
        shape: ``(depth, lateral)``.
        method: ``cg``, with the direct solve where that fails, or ``direct``.
        tolerance: Largest error to stop at.
        certify: Whether to bound the error.

    Attributes:
        shape: As given.
    """

    def __init__(self, shape: tuple[int, int], method: Method, tolerance: float, certify: bool) -> None:
        self.shape = shape
        self._dissection = dissect(*shape)
        self._method = method
        self._tolerance = tolerance
        self._certify = certify
        self._buffers: dict[type[np.floating], _Buffers] = {}

    def __call__(self, network: Network, right: FloatArray | None = None) -> Solution:
        """Solve one system.

        Args:
            network: The system of one frame.
            right: Another right-hand side than the network's own, ``(depth, lateral)``; the tolerance then is relative
                to the largest entry of the solution.

        Returns:
            The solution.
        """
        if not network.unknown.any():
            return Solution(np.zeros(network.right.shape), 0, 0.0, 0.0 if self._certify else np.nan, fallback=False)
        beyond = _contrast(network) < LEAST_CONTRAST
        if self._method == "cg" and not beyond:
            solution = self._solve(network, right, np.float32)
            # The bound is NaN, and no reason to doubt, where it was not asked for.
            if solution.error_estimate <= self._tolerance and not solution.error_bound > self._tolerance:
                return solution
        solution = self._solve(network, right, np.float64)
        if beyond and np.isfinite(solution.error_estimate):
            mirrored = _mirror(network)
            again = self._solve(mirrored, None if right is None else right[:, ::-1].copy(), np.float64)
            difference = np.abs(solution.values - again.values[:, ::-1]).max()
            solution = replace(solution, error_estimate=float(difference))
        return replace(solution, fallback=self._method == "cg")

    def _solve(self, network: Network, right: FloatArray | None, dtype: type[np.floating]) -> Solution:
        """Factorise in one precision and solve."""
        compile_once(dtype is np.float64)
        if dtype not in self._buffers:
            self._buffers[dtype] = _Buffers(self._dissection, dtype)
        buffers = self._buffers[dtype]
        scale = SCALE[dtype]
        given = network.right if right is None else right
        values = np.zeros(given.shape)
        shared = (self._dissection, scale, buffers.factor, buffers.work)
        iterations, estimate, bound = 0, np.inf, np.nan
        lost = factorise(network, *shared)
        if lost == 0 and dtype is np.float64:
            estimate = direct(network, given, *shared, right is not None, values)
        elif lost == 0:
            iterations, estimate = conjugate_gradients(
                network, given, *shared, self._tolerance / 2, right is not None, MOST_STEPS, values
            )
        if self._certify:
            bound = certify(network, given, *shared, values) if np.isfinite(estimate) else np.inf
        return Solution(values, int(iterations), float(estimate), float(bound), fallback=False)


class ThreadSolvers:
    """A solver for every thread, of the shape that it met last: memory grows with the threads, not with the shapes.

    Args:
        method: As for :class:`CompiledSolver`.
        tolerance: The same.
        certify: The same.
    """

    def __init__(self, method: Method, tolerance: float, certify: bool) -> None:
        self._arguments = (method, tolerance, certify)
        self._own = threading.local()

    def for_shape(self, shape: tuple[int, int]) -> CompiledSolver:
        """Give the calling thread's solver.

        Args:
            shape: ``(depth, lateral)``.

        Returns:
            The solver.
        """
        solver: CompiledSolver | None = getattr(self._own, "solver", None)
        if solver is None or solver.shape != shape:
            solver = self._own.solver = CompiledSolver(shape, *self._arguments)
        return solver


def _contrast(network: Network) -> float:
    """Divide the smallest weight by the largest."""
    weights = (network.vertical, network.horizontal, network.down_right, network.down_left, network.slack)
    smallest = min(float(np.min(weight, where=weight > 0, initial=np.inf)) for weight in weights)
    largest = max(float(np.max(weight, initial=0.0)) for weight in weights)
    return smallest / largest if largest > 0 else 1.0


def _mirror(network: Network) -> Network:
    """Reverse the order of columns."""
    mirrored = Network(*(np.ascontiguousarray(array[:, ::-1]) for array in network))
    return mirrored._replace(down_right=mirrored.down_left, down_left=mirrored.down_right)
