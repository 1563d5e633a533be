"""Solution of linear systems of frames of the same shape."""

from dataclasses import dataclass

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
from cm_lightning.confidence.cpu.equations import from_lanes, to_lanes
from cm_lightning.confidence.cpu.factorisation import Factorisation, lanes_of, make_factorisation
from cm_lightning.confidence.cpu.threads import ONE_THREAD, Workers
from cm_lightning.confidence.graph import RandomWalkGraph, mirror
from cm_lightning.confidence.problem import Method

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Solutions:
    """Solutions of linear systems.

    Attributes:
        values: Solutions, float64, ``(depth, lateral * lanes)``, 0 outside the unknown pixels.
        iterations: Number of steps of conjugate gradients, ``(lanes,)``; 0 for direct solutions.
        error_estimate: Estimates of the maximum errors, ``(lanes,)``; infinite if the method failed.
        error_bound: Proven upper bounds of the maximum errors, ``(lanes,)``; NaN if they were not computed, infinite if
            no bound was found.
        fallback: Systems that were solved directly although the method is ``cg``, ``(lanes,)``.
    """

    values: FloatArray
    iterations: NDArray[np.int64]
    error_estimate: FloatArray
    error_bound: FloatArray
    fallback: BoolArray

    @classmethod
    def zeros(cls, shape: tuple[int, ...], lanes: int, certify: bool) -> "Solutions":
        """Create solutions for systems without unknown pixels, which are updated for all other systems.

        Args:
            shape: Shape of the values, ``(depth, lateral * lanes)``.
            lanes: Number of lanes.
            certify: Whether error bounds are computed.

        Returns:
            Solutions, steps and errors of 0.
        """
        return cls(
            values=np.zeros(shape),
            iterations=np.zeros(lanes, np.int64),
            error_estimate=np.zeros(lanes),
            error_bound=np.full(lanes, 0.0 if certify else np.nan),
            fallback=np.zeros(lanes, np.bool_),
        )


class CompiledSolver:
    """Solver for systems of the same shape, which reuses its memory.

    Args:
        shape: Shape of the systems, ``(depth, lateral)``.
        threads: Maximum number of threads.

    Attributes:
        shape: Shape of the systems, ``(depth, lateral)``.
        lanes: Number of systems that are solved at a time; the arrays of systems have ``lateral * lanes`` columns.
        threads: Maximum number of threads.
    """

    def __init__(self, shape: tuple[int, int], threads: int = 1) -> None:
        self.shape = shape
        self.lanes = lanes_of(shape)
        self.threads = threads
        self._factorisations: dict[type[np.floating], Factorisation] = {}
        self._vectors = np.empty((3, shape[0], shape[1] * self.lanes))

    def __call__(
        self,
        graph: RandomWalkGraph,
        method: Method,
        tolerance: float,
        certify: bool = False,
        rhs: FloatArray | None = None,
        well_conditioned: bool = False,
        workers: Workers = ONE_THREAD,
    ) -> Solutions:
        """Solve linear systems.

        Args:
            graph: Linear systems, with ``lanes`` values per pixel.
            method: ``cg`` (conjugate gradients; the direct solver where they fail) or ``direct``.
            tolerance: Maximum error of a solution.
            certify: Whether to compute proven error bounds.
            rhs: Right-hand side, ``(depth, lateral * lanes)``, which replaces that of the graph. In this case, the
                tolerance and error estimates are relative to the largest absolute value of the solution, but error
                bounds are not.
            well_conditioned: Whether it is known that no system is ill-conditioned.
            workers: Threads.

        Returns:
            The solutions.
        """
        lanes = self.lanes
        right = graph.rhs if rhs is None else rhs
        wanted = graph.unknown.reshape(self.shape[0], -1, lanes).any(axis=(0, 1))
        result = Solutions.zeros(right.shape, lanes, certify)
        ill_conditioned = np.zeros(lanes, np.bool_)
        if not well_conditioned:
            ill_conditioned = wanted & is_ill_conditioned(_by_frame(graph, lanes))
        remaining = wanted
        if method == "cg":
            first = wanted & ~ill_conditioned
            if first.any():
                self._solve(graph, right, rhs is not None, np.float32, first, tolerance, certify, workers, result)
            accepted = is_accepted(result.error_estimate, result.error_bound, tolerance)
            remaining = wanted & (ill_conditioned | ~accepted)
            result.fallback[remaining] = True
        if not remaining.any():
            return result
        self._solve(graph, right, rhs is not None, np.float64, remaining, tolerance, certify, workers, result)
        checked = remaining & ill_conditioned & np.isfinite(result.error_estimate)
        if checked.any():
            mirrored = Solutions.zeros(right.shape, lanes, False)
            flipped = RandomWalkGraph(*(to_lanes(array, lanes) for array in mirror(_by_frame(graph, lanes))))
            flipped_rhs = to_lanes(from_lanes(right, lanes)[..., ::-1], lanes)
            self._solve(flipped, flipped_rhs, rhs is not None, np.float64, checked, tolerance, False, workers, mirrored)
            values, flipped_values = (from_lanes(solution.values, lanes) for solution in (result, mirrored))
            unit = np.ones(lanes)
            if rhs is not None:
                unit = np.maximum(np.abs(values).max(axis=(-2, -1), initial=0.0), np.finfo(np.float64).tiny)
            estimates = difference_from_mirrored(values, flipped_values) / unit
            result.error_estimate[checked] = estimates[checked]
        return result

    def _solve(
        self,
        graph: RandomWalkGraph,
        rhs: FloatArray,
        relative: bool,
        dtype: type[np.floating],
        lanes: BoolArray,
        tolerance: float,
        certified: bool,
        workers: Workers,
        result: Solutions,
    ) -> None:
        """Factorise and solve the systems of some lanes with a factor of the given type."""
        compile_once(dtype is np.float64, self.lanes > 1)
        if dtype not in self._factorisations:
            self._factorisations[dtype] = make_factorisation(self.shape, dtype, self.threads)
        factorisation = self._factorisations[dtype]
        usable = lanes & (factorisation.factorise(graph, workers) == 0)
        values = np.empty(rhs.shape)
        if dtype is np.float64:
            with np.errstate(all="ignore"):  # lanes that failed
                estimates = direct(graph, rhs, factorisation, relative, values, workers)
            steps = np.zeros(self.lanes, np.int64)
            estimates = np.where(usable & np.isfinite(estimates), estimates, np.inf)
        else:
            stop = STOPPING_FRACTION * tolerance
            steps, estimates = conjugate_gradients(
                graph, rhs, factorisation, stop, relative, MAX_STEPS, usable, values, self._vectors, workers
            )
        np.copyto(result.values, values, where=True if lanes.all() else np.tile(lanes, rhs.shape[1] // self.lanes))
        result.iterations[lanes] = steps[lanes]
        result.error_estimate[lanes] = estimates[lanes]
        if certified:
            result.error_bound[lanes] = self._bound(graph, rhs, values, dtype, estimates, workers)[lanes]

    def _bound(
        self,
        graph: RandomWalkGraph,
        rhs: FloatArray,
        values: FloatArray,
        dtype: type[np.floating],
        estimates: FloatArray,
        workers: Workers,
    ) -> FloatArray:
        """Compute error bounds of solutions from the factor with which they were computed."""
        lanes, factorisation = self.lanes, self._factorisations[dtype]

        def multiply_all(x: FloatArray, product: FloatArray, magnitude: FloatArray, _: NDArray[np.int32]) -> None:
            result, sums = np.empty(values.shape), np.empty(values.shape)
            multiply(graph, to_lanes(x, lanes), result, lanes, workers, sums)
            product[:], magnitude[:] = from_lanes(result, lanes), from_lanes(sums, lanes)

        def substitute_all(vector: FloatArray, _: NDArray[np.int32]) -> NDArray[np.floating]:
            return from_lanes(factorisation.solve(to_lanes(vector, lanes), workers), lanes)

        failed = (~np.isfinite(estimates)).astype(np.int32)
        with np.errstate(all="ignore"):  # lanes that failed
            bounds = certify(
                _by_frame(graph, lanes),
                from_lanes(rhs, lanes),
                from_lanes(values, lanes).copy(),
                multiply_all,
                substitute_all,
                failed,
            )
        return np.where(failed > 0, np.inf, bounds)

    def nbytes(self) -> int:
        """Return the memory in bytes."""
        return self._vectors.nbytes + sum(item.nbytes() for item in self._factorisations.values())


def _by_frame(graph: RandomWalkGraph, lanes: int) -> RandomWalkGraph:
    """Return views of interleaved systems as ``(lanes, depth, lateral)``."""
    return RandomWalkGraph(*(from_lanes(array, lanes) for array in graph))
