"""The solution of one frame's equations after the other in one thread, which keeps its memory from one to the next."""

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import (
    MOST_STEPS,
    STOPPING_SHARE,
    difference_from_mirrored,
    is_accepted,
    is_ill_conditioned,
)
from cm_lightning.confidence.certificate import certify
from cm_lightning.confidence.cpu.compilation import compile_once
from cm_lightning.confidence.cpu.conjugate_gradients import conjugate_gradients, direct, multiply
from cm_lightning.confidence.cpu.elimination import factorise, substitute
from cm_lightning.confidence.cpu.memory import Factor, Workspace, make_factor, make_workspace
from cm_lightning.confidence.dissection import Dissection, dissect
from cm_lightning.confidence.graph import RandomWalkGraph, mirror
from cm_lightning.confidence.problem import Method

FloatArray = NDArray[np.float64]

# Weights are multiplied by this in float32: they are at most 1, so that the upper half of float32's range
# would go unused.
SCALE = {np.float32: 2.0**96, np.float64: 1.0}


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
    """Solve graphs of one shape, in one thread; keeps its memory from one to the next.

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

    def __call__(self, graph: RandomWalkGraph, right: FloatArray | None = None) -> Solution:
        """Solve one system.

        Args:
            graph: The system of one frame.
            right: Another right-hand side than the graph's own, ``(depth, lateral)``; the tolerance then is relative
                to the largest entry of the solution.

        Returns:
            The solution.
        """
        if not graph.unknown.any():
            return Solution(np.zeros(graph.right.shape), 0, 0.0, 0.0 if self._certify else np.nan, fallback=False)
        ill_conditioned = is_ill_conditioned(graph)
        if self._method == "cg" and not ill_conditioned:
            solution = self._solve(graph, right, np.float32)
            if is_accepted(solution.error_estimate, solution.error_bound, self._tolerance):
                return solution
        solution = self._solve(graph, right, np.float64)
        if ill_conditioned and np.isfinite(solution.error_estimate):
            mirrored_right = None if right is None else right[:, ::-1].copy()
            mirrored = self._solve(mirror(graph), mirrored_right, np.float64)
            estimate = difference_from_mirrored(solution.values, mirrored.values)
            solution = replace(solution, error_estimate=float(estimate))
        return replace(solution, fallback=self._method == "cg")

    def _solve(self, graph: RandomWalkGraph, right: FloatArray | None, dtype: type[np.floating]) -> Solution:
        """Factorise in one precision and solve."""
        compile_once(dtype is np.float64)
        if dtype not in self._buffers:
            self._buffers[dtype] = _Buffers(self._dissection, dtype)
        buffers = self._buffers[dtype]
        given = graph.right if right is None else right
        values = np.zeros(given.shape)
        shared = (self._dissection, SCALE[dtype], buffers.factor, buffers.work)
        iterations, estimate, bound = 0, np.inf, np.nan
        lost = factorise(graph, *shared)
        if lost == 0 and dtype is np.float64:
            estimate = direct(graph, given, *shared, right is not None, values)
        elif lost == 0:
            iterations, estimate = conjugate_gradients(
                graph, given, *shared, STOPPING_SHARE * self._tolerance, right is not None, MOST_STEPS, values
            )
        if self._certify:
            bound = self._bound(graph, given, values, dtype) if np.isfinite(estimate) else np.inf
        return Solution(values, int(iterations), float(estimate), float(bound), fallback=False)

    def _bound(self, graph: RandomWalkGraph, right: FloatArray, values: FloatArray, dtype: type[np.floating]) -> float:
        """Bound the error of a solution with the factor that it was found with."""
        buffers = self._buffers[dtype]

        def multiply_all(x: FloatArray, product: FloatArray, magnitude: FloatArray, _: NDArray[np.int32]) -> None:
            multiply(graph, x, product, magnitude)

        def substitute_all(vector: FloatArray, _: NDArray[np.int32]) -> NDArray[np.floating]:
            shared = (self._dissection, SCALE[dtype], buffers.factor, buffers.work)
            substitute(vector.ravel(), *shared, *self.shape)
            return buffers.work.solution.reshape(self.shape)

        return float(certify(graph, right, values, multiply_all, substitute_all, np.zeros((), np.int32)))


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
