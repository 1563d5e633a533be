"""Solution of linear systems on one thread, which reuses its memory for all systems of the same shape."""

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.accuracy import (
    MAX_STEPS,
    STOPPING_FRACTION,
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

# Factor of all weights in each type. Since weights are at most 1, only the lower half of the range of float32 would be
# used otherwise.
SCALE = {np.float32: 2.0**96, np.float64: 1.0}


@dataclass(frozen=True)
class Solution:
    """Solution of a linear system.

    Attributes:
        values: Solution, float64, ``(depth, lateral)``, 0 outside the unknown pixels.
        iterations: Number of steps of conjugate gradients; 0 for direct solutions.
        error_estimate: Estimate of the maximum error.
        error_bound: Proven upper bound of the maximum error; NaN if it was not computed.
        fallback: Whether the system was solved directly although the method is ``cg``.
    """

    values: FloatArray
    iterations: int
    error_estimate: float
    error_bound: float
    fallback: bool


class _Buffers:
    """Factor and buffers of a thread for systems of the same shape."""

    def __init__(self, dissection: Dissection, dtype: type[np.floating]) -> None:
        self.factor: Factor = make_factor(dissection, dtype)
        self.work: Workspace = make_workspace(dissection, dtype)


class CompiledSolver:
    """Solver for systems of the same shape on one thread, which reuses its memory.

    Args:
        shape: Shape of the systems, ``(depth, lateral)``.
        method: ``cg`` for conjugate gradients, and the direct solver if they fail, or ``direct``.
        tolerance: Maximum error of a solution.
        certify: Whether to compute proven error bounds.

    Attributes:
        shape: Shape of the systems, ``(depth, lateral)``.
    """

    def __init__(self, shape: tuple[int, int], method: Method, tolerance: float, certify: bool) -> None:
        self.shape = shape
        self._dissection = dissect(*shape)
        self._method = method
        self._tolerance = tolerance
        self._certify = certify
        self._buffers: dict[type[np.floating], _Buffers] = {}

    def __call__(self, graph: RandomWalkGraph, rhs: FloatArray | None = None) -> Solution:
        """Solve a linear system.

        Args:
            graph: Linear system of one frame.
            rhs: Right-hand side, ``(depth, lateral)``, which replaces that of the graph. In this case, the tolerance
                and errors are relative to the largest absolute value of the solution.

        Returns:
            The solution.
        """
        if not graph.unknown.any():
            return Solution(np.zeros(graph.rhs.shape), 0, 0.0, 0.0 if self._certify else np.nan, fallback=False)
        ill_conditioned = is_ill_conditioned(graph)
        if self._method == "cg" and not ill_conditioned:
            solution = self._solve(graph, rhs, np.float32)
            if is_accepted(solution.error_estimate, solution.error_bound, self._tolerance):
                return solution
        solution = self._solve(graph, rhs, np.float64)
        if ill_conditioned and np.isfinite(solution.error_estimate):
            mirrored_rhs = None if rhs is None else rhs[:, ::-1].copy()
            mirrored = self._solve(mirror(graph), mirrored_rhs, np.float64)
            estimate = difference_from_mirrored(solution.values, mirrored.values)
            solution = replace(solution, error_estimate=float(estimate))
        return replace(solution, fallback=self._method == "cg")

    def _solve(self, graph: RandomWalkGraph, rhs: FloatArray | None, dtype: type[np.floating]) -> Solution:
        """Factorise and solve a system with a factor of the given type."""
        compile_once(dtype is np.float64)
        if dtype not in self._buffers:
            self._buffers[dtype] = _Buffers(self._dissection, dtype)
        buffers = self._buffers[dtype]
        right_side = graph.rhs if rhs is None else rhs
        values = np.zeros(right_side.shape)
        arguments = (self._dissection, SCALE[dtype], buffers.factor, buffers.work)
        iterations, estimate, bound = 0, np.inf, np.nan
        zero_pivots = factorise(graph, *arguments)
        if zero_pivots == 0 and dtype is np.float64:
            estimate = direct(graph, right_side, *arguments, rhs is not None, values)
        elif zero_pivots == 0:
            iterations, estimate = conjugate_gradients(
                graph, right_side, *arguments, STOPPING_FRACTION * self._tolerance, rhs is not None, MAX_STEPS, values
            )
        if self._certify:
            bound = self._bound(graph, right_side, values, dtype) if np.isfinite(estimate) else np.inf
        return Solution(values, int(iterations), float(estimate), float(bound), fallback=False)

    def _bound(self, graph: RandomWalkGraph, rhs: FloatArray, values: FloatArray, dtype: type[np.floating]) -> float:
        """Compute an error bound of a solution from the factor with which it was computed."""
        buffers = self._buffers[dtype]

        def multiply_all(x: FloatArray, product: FloatArray, magnitude: FloatArray, _: NDArray[np.int32]) -> None:
            multiply(graph, x, product, magnitude)

        def substitute_all(vector: FloatArray, _: NDArray[np.int32]) -> NDArray[np.floating]:
            arguments = (self._dissection, SCALE[dtype], buffers.factor, buffers.work)
            substitute(vector.ravel(), *arguments, *self.shape)
            return buffers.work.solution.reshape(self.shape)

        return float(certify(graph, rhs, values, multiply_all, substitute_all, np.zeros((), np.int32)))


class ThreadSolvers:
    """Solvers of all threads.

    Each thread only keeps the solver for its last shape, so that the memory does not grow with the number of shapes.

    Args:
        method: ``cg`` or ``direct``; see :class:`CompiledSolver`.
        tolerance: Maximum error of a solution.
        certify: Whether to compute proven error bounds.
    """

    def __init__(self, method: Method, tolerance: float, certify: bool) -> None:
        self._arguments = (method, tolerance, certify)
        self._local = threading.local()

    def for_shape(self, shape: tuple[int, int]) -> CompiledSolver:
        """Return the solver of the calling thread.

        Args:
            shape: Shape of the systems, ``(depth, lateral)``.

        Returns:
            The solver.
        """
        solver: CompiledSolver | None = getattr(self._local, "solver", None)
        if solver is None or solver.shape != shape:
            solver = self._local.solver = CompiledSolver(shape, *self._arguments)
        return solver
