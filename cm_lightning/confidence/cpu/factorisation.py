"""Factorisations of linear systems of frames of the same shape: LANES small frames at a time, or one large frame."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.cpu.lanes import factorise_lanes, make_buffers, reduce_lanes, substitute_lanes
from cm_lightning.confidence.cpu.parts import (
    Workspace,
    eliminate_part,
    eliminate_upper_front,
    make_factor,
    make_workspace,
    reduce_front,
    reduce_part,
    substitute_front,
    substitute_part,
)
from cm_lightning.confidence.cpu.plan import CELL, make_layout
from cm_lightning.confidence.cpu.program import make_program
from cm_lightning.confidence.cpu.threads import Workers
from cm_lightning.confidence.cpu.vectors import LANES, aligned_empty
from cm_lightning.confidence.graph import RandomWalkGraph

Array = NDArray[Any]
Precision = type[np.floating]

# Maximum number of pixels of a small frame. Small frames are always eliminated LANES at a time; missing frames are
# filled
# with zeros.
MAX_SMALL_PIXELS = 128 * 128
# Number by which all weights are multiplied in each type. Since weights are at most 1, only the lower half of the range
# of float32 would be used otherwise.
SCALE = {np.float32: 2.0**96, np.float64: 1.0}


class Factorisation(Protocol):
    """Factorisation of linear systems, whose memory is used again for other systems of the same shape.

    Attributes:
        lanes: Number of systems that are factorised at a time.
    """

    lanes: int

    def factorise(self, graph: RandomWalkGraph, workers: Workers) -> Array:
        """Factorise linear systems by elimination of all pixels.

        Args:
            graph: Linear systems, with ``lanes`` values per pixel.
            workers: Threads.

        Returns:
            Number of unknown pixels whose weights are all 0 in the type of the factor, ``(lanes,)``. If there are any,
            the factor of this system cannot be used.
        """
        ...

    def solve(self, rhs: Array, workers: Workers) -> Array:
        """Solve ``A x = b`` by forward and backward substitution, in the type of the factor.

        Args:
            rhs: Right-hand side ``b``, ``(depth, lateral * lanes)``, 0 at pixels with known values.
            workers: Threads.

        Returns:
            Solution ``x``, ``(depth, lateral * lanes)``, which is overwritten by the next call.
        """
        ...

    def nbytes(self) -> int:
        """Return the memory in bytes."""
        ...


def lanes_of(shape: tuple[int, int]) -> int:
    """Return the number of frames of a shape that are solved at a time: LANES for small frames, 1 for large ones.

    It only depends on the shape, so that maps do not depend on the number of frames.
    """
    return LANES if shape[0] * shape[1] <= MAX_SMALL_PIXELS else 1


def make_factorisation(shape: tuple[int, int], dtype: Precision, threads: int = 1) -> Factorisation:
    """Allocate a factorisation.

    Args:
        shape: Shape of the frames, ``(depth, lateral)``.
        dtype: Type of the factor.
        threads: Maximum number of threads.

    Returns:
        The factorisation.
    """
    return LaneFactorisation(shape, dtype) if lanes_of(shape) > 1 else TreeFactorisation(shape, dtype, threads)


class LaneFactorisation:
    """Factorisation of LANES small frames at a time, on one thread; see :class:`Factorisation`.

    Args:
        shape: Shape of the frames, ``(depth, lateral)``.
        dtype: Type of the factor.
    """

    lanes = LANES

    def __init__(self, shape: tuple[int, int], dtype: Precision) -> None:
        self._program = make_program(*shape, 0)
        self._scale = SCALE[dtype]
        pixels = shape[0] * shape[1]
        self._edges = aligned_empty((4 * pixels, LANES), dtype)
        self._edges[:] = 0
        self._slack = aligned_empty((pixels, LANES), dtype)
        self._factor = aligned_empty((int(self._program.factor_start[-1]), LANES), dtype)
        self._inverses = aligned_empty((pixels, LANES), dtype)
        self._buffers = make_buffers(self._program, dtype)
        self._vector = aligned_empty((pixels, LANES), dtype)

    def factorise(self, graph: RandomWalkGraph, workers: Workers) -> Array:
        """Factorise LANES systems; see :meth:`Factorisation.factorise`."""
        _convert(graph, self._scale, self._edges, self._slack)
        factorise_lanes(self._program, self._edges, self._slack, self._factor, self._inverses, self._buffers)
        unknown = graph.unknown.reshape(-1, LANES)
        return np.asarray((unknown & (self._inverses == 0)).sum(axis=0))

    def solve(self, rhs: Array, workers: Workers) -> Array:
        """Solve LANES systems; see :meth:`Factorisation.solve`."""
        _load(rhs, self._scale, 0, len(rhs), 0, rhs.shape[1], self._vector.reshape(rhs.shape))
        reduce_lanes(self._program, self._factor, self._inverses, self._vector, self._buffers.values)
        substitute_lanes(self._program, self._factor, self._vector, self._buffers.values)
        return self._vector.reshape(rhs.shape)

    def nbytes(self) -> int:
        """Return the memory in bytes."""
        arrays = (self._edges, self._slack, self._factor, self._inverses, self._vector, *self._buffers)
        return sum(array.nbytes for array in arrays)


@njit(cache=True, nogil=True)
def _convert(graph: RandomWalkGraph, scale: float, edges: Array, slack: Array) -> None:
    """Copy the weights of LANES frames, multiplied by a number, to arrays of vectors; see :func:`factorise_lanes`."""
    depth, width = graph.slack.shape
    flat = edges.reshape(4, depth, width)
    slack_rows = slack.reshape(depth, width)
    for row in range(depth):
        _copy_row(graph.slack[row], scale, slack_rows[row])
        _copy_row(graph.horizontal[row], scale, flat[1, row])
        if row + 1 < depth:
            _copy_row(graph.vertical[row], scale, flat[0, row])
            _copy_row(graph.down_right[row], scale, flat[2, row])
            _copy_row(graph.down_left[row], scale, flat[3, row])


@njit(cache=True, nogil=True)
def _load(rhs: Array, scale: float, top: int, bottom: int, left: int, right: int, vector: Array) -> None:
    """Copy the right-hand side in a rectangle, multiplied by a number, and set the pixels around it to 0."""
    depth, lateral = rhs.shape
    first, last = max(left - 1, 0), min(right, lateral - 1)
    for row in range(max(top - 1, 0), min(bottom + 1, depth)):
        if top <= row < bottom:
            vector[row, first] = vector[row, last] = 0
            _copy_row(rhs[row, left:right], scale, vector[row, left:right])
        else:
            for column in range(first, last + 1):
                vector[row, column] = 0


@njit(cache=True, nogil=True)
def _copy_row(source: Array, scale: float, target: Array) -> None:
    """Copy a row, multiplied by a number."""
    for k in range(len(source)):
        target[k] = source[k] * scale


class TreeFactorisation:
    """Factorisation of a large frame; see :class:`Factorisation`.

    Args:
        shape: Shape of the frame, ``(depth, lateral)``.
        dtype: Type of the factor.
        threads: Maximum number of threads.
    """

    lanes = 1

    def __init__(self, shape: tuple[int, int], dtype: Precision, threads: int) -> None:
        self._layout = layout = make_layout(*shape)
        self._program = make_program(CELL, CELL, 1)
        self._scale = SCALE[dtype]
        self._factor = make_factor(layout, self._program, dtype)
        count = min(threads, len(layout.roots))
        self._workspaces = [make_workspace(layout, self._program, dtype) for _ in range(count)]
        self._updates = {
            front: aligned_empty(layout.ring(front) * (layout.ring(front) + 1), dtype)
            for front in (*layout.roots, *layout.upper_fronts)
        }
        # A vector for each part, because parts add to the same pixels of the lines between them.
        self._vectors = [aligned_empty(shape, dtype) for _ in layout.roots]
        self._solution = self._vectors[0] if len(layout.roots) == 1 else aligned_empty(shape, dtype)
        start, pivots = layout.plan.start, layout.plan.pivots
        upper = [layout.plan.pixels[start[front] : start[front] + pivots[front]] for front in layout.upper_fronts]
        self._upper_pixels = np.concatenate([np.empty(0, np.int64), *upper])

    @contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        """Provide buffers that no other thread uses."""
        work = self._workspaces.pop()
        yield work
        self._workspaces.append(work)

    def factorise(self, graph: RandomWalkGraph, workers: Workers) -> Array:
        """Factorise a system; see :meth:`Factorisation.factorise`."""
        layout, plan = self._layout, self._layout.plan
        zero_pivots: list[int] = []

        def part(number: int) -> None:
            update = self._updates[layout.roots[number]]
            with self._workspace() as work:
                arguments = (self._program, number, self._scale, self._factor, work, update)
                zero_pivots.append(eliminate_part(graph, plan, *arguments))

        def upper(front: int) -> None:
            updates = [self._updates[index] for index in (*plan.halves[front], front)]
            with self._workspace() as work:
                zero_pivots.append(eliminate_upper_front(graph, plan, front, self._scale, self._factor, work, *updates))

        workers.run(part, range(len(layout.roots)))
        for level in layout.levels:
            workers.run(upper, level)
        return np.array([sum(zero_pivots)])

    def solve(self, rhs: Array, workers: Workers) -> Array:
        """Solve a system; see :meth:`Factorisation.solve`."""
        layout, plan = self._layout, self._layout.plan
        solution = self._solution.reshape(-1)

        def reduce(number: int) -> None:
            vector = self._vectors[number]
            top, bottom, left, right = plan.parts[number, 2:]
            _load(rhs, self._scale, top, bottom, left, right, vector)
            with self._workspace() as work:
                reduce_part(plan, self._program, number, self._factor, work, *layout.shape, vector.reshape(-1))

        def substitute(number: int) -> None:
            vector = self._vectors[number]
            top, bottom, left, right = plan.parts[number, 2:]
            if layout.levels:
                vector.reshape(-1)[self._upper_pixels] = solution[self._upper_pixels]
            with self._workspace() as work:
                substitute_part(plan, self._program, number, self._factor, work, *layout.shape, vector.reshape(-1))
            if layout.levels:
                self._solution[top:bottom, left:right] = vector[top:bottom, left:right]

        parts = range(len(layout.roots))
        workers.run(reduce, parts)
        if layout.levels:
            self._add_at_lines(rhs)
            with self._workspace() as work:
                for front in layout.upper_fronts:
                    reduce_front(plan, front, self._factor, work, solution)
                for front in reversed(layout.upper_fronts):
                    substitute_front(plan, front, self._factor, work, solution)
        workers.run(substitute, parts)
        return self._solution

    def _add_at_lines(self, rhs: Array) -> None:
        """Add the right-hand side and the contributions of the parts at the lines between parts."""
        pixels = self._upper_pixels
        solution = self._solution.reshape(-1)
        solution[pixels] = rhs.reshape(-1)[pixels] * self._scale
        lateral = self._layout.shape[1]
        rows, columns = pixels // lateral, pixels % lateral
        for (top, bottom, left, right), vector in zip(self._layout.plan.parts[:, 2:], self._vectors, strict=True):
            near = (rows >= top - 1) & (rows <= bottom) & (columns >= left - 1) & (columns <= right)
            solution[pixels[near]] += vector.reshape(-1)[pixels[near]]

    def nbytes(self) -> int:
        """Return the memory in bytes, without the layout, which is shared by all frames of the same shape."""
        arrays = [*self._factor, *self._vectors, self._solution, *self._updates.values()]
        for work in self._workspaces:
            arrays += [*work.lanes, *work.fronts, work.edges, work.slack, work.window]
            arrays += [work.cell_updates, work.stack, work.position]
        return sum(array.nbytes for array in arrays)
