"""Solvers whose memory is kept between calls."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cm_lightning.confidence.cpu.factorisation import lanes_of, make_factorisation
from cm_lightning.confidence.cpu.solver import CompiledSolver

# Maximum memory in bytes of the solvers that are kept between calls.
MAX_KEPT_BYTES = 512 * 2**20


class SolverPool:
    """Solvers that are not in use.

    The memory of a solver is large, and the operating system needs about as much time to provide it as the solver needs
    for a frame. Solvers are therefore kept for the next frames. Only those for the last shape are kept, so that
    the memory does not grow with the number of shapes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[CompiledSolver] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Replace the lock, which another thread of the parent process may have held."""
        self._lock = threading.Lock()
        self._idle = []

    @contextmanager
    def borrow(self, shape: tuple[int, int], threads: int) -> Iterator[CompiledSolver]:
        """Provide a solver that no other thread uses.

        Args:
            shape: Shape of the frames, ``(depth, lateral)``.
            threads: Number of threads of the solver.

        Yields:
            The solver.
        """
        solver = None
        with self._lock:
            self._idle = [idle for idle in self._idle if idle.shape == shape]
            for index, idle in enumerate(self._idle):
                if idle.threads >= threads:
                    solver = self._idle.pop(index)
                    break
        solver = solver or CompiledSolver(shape, threads)
        yield solver
        with self._lock:
            kept = [idle for idle in self._idle if idle.shape == shape]
            if sum(idle.nbytes() for idle in kept) + solver.nbytes() <= MAX_KEPT_BYTES:
                self._idle = [*kept, solver]


def bytes_per_frame(shape: tuple[int, int], precision: type[np.float32] | type[np.float64]) -> int:
    """Compute the memory that is needed for each frame that is processed at the same time on the CPU.

    Args:
        shape: Shape of the bounding box of the domain, ``(depth, lateral)``.
        precision: Type of the factor: float32 for conjugate gradients, float64 for the direct solver. Frames that are
            solved directly after conjugate gradients failed need both.

    Returns:
        Memory of the factor, buffers, weights and vectors in bytes, without the layout, which all frames of the same
        shape share.
    """
    factorisation = make_factorisation(shape, precision)
    # Arrays in float64: four weights, slack, right-hand side, known values and the solution (twice), followed by
    # residual, direction and product; the direct solver only needs one of them.
    doubles = 9 + (1 if precision is np.float64 else 3)
    return int(factorisation.nbytes() / lanes_of(shape)) + doubles * 8 * shape[0] * shape[1]
