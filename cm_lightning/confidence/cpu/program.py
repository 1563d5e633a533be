"""Order and indices of the elimination of LANES rectangles of the same size at a time.

The rectangles are whole small frames, or cells of a large frame. All leaves have up to 3 x 3 pixels, and all nodes are
dense fronts (see :mod:`cm_lightning.confidence.tree`): packed upper triangles, in which row ``i`` of a front of
``n`` pixels consists of the weights to pixels ``i + 1`` to ``n - 1`` and the slack of pixel ``i``.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cm_lightning.confidence.tree import Integers, Tree, append_runs, grow_tree, list_pixels
from cm_lightning.confidence.weights import EDGE_STEPS

# Maximum side length of a leaf in pixels.
LEAF = 3

_STEPS = np.array(EDGE_STEPS)


class Program(NamedTuple):
    """Elimination of a rectangle in a window, for use in compiled code.

    Attributes:
        height: Number of rows of the window.
        width: Number of columns of the window.
        pixels: Pixels of all fronts, as row-major indices of the window; see
            :class:`cm_lightning.confidence.tree.NodePixels`.
        start: Index in ``pixels`` of the first pixel of each front, followed by the length of ``pixels``, ``(fronts +
            1,)``.
        pivots: Number of pivots of each front, ``(fronts,)``.
        rings: Number of pixels of the rings of both halves of each front, 0 for an empty half, ``(fronts, 2)``.
        edge_start: Index in ``edges`` of the first edge of each front, followed by the length of ``edges``, ``(fronts +
            1,)``.
        edges: Index of each edge in the packed triangle, and in the weights of the window (kind of edge * pixels +
            pixel of the square that contains the edge), ``(edges, 2)``.
        run_start: Index in ``runs`` of the first run of each half (two per front), followed by the length of ``runs``,
            ``(2 * fronts + 1,)``.
        runs: Runs of values that are added to a front: index in the ring of the half, index in the front, length,
            ``(runs, 3)``.
        factor_start: First row of each front in the factor, followed by the number of rows, ``(fronts + 1,)``.
        stack_size: Maximum number of rows of fronts and updates that are stored at the same time.
        largest: Number of pixels of the largest front.
    """

    height: int
    width: int
    pixels: NDArray[np.int64]
    start: NDArray[np.int64]
    pivots: NDArray[np.int64]
    rings: NDArray[np.int64]
    edge_start: NDArray[np.int64]
    edges: NDArray[np.int64]
    run_start: NDArray[np.int64]
    runs: NDArray[np.int64]
    factor_start: NDArray[np.int64]
    stack_size: int
    largest: int


@lru_cache(maxsize=16)
def make_program(height: int, width: int, margin: int) -> Program:
    """Determine the elimination of a rectangle. The last 16 programs are cached.

    Args:
        height: Number of rows of the rectangle.
        width: Number of columns of the rectangle.
        margin: Width in pixels of the margin around the rectangle, which is part of the window but not eliminated: 1
            for cells, 0 for frames.

    Returns:
        The program.
    """
    tree = grow_tree(margin, margin + height, margin, margin + width, LEAF)
    high, wide = height + 2 * margin, width + 2 * margin
    pixels, start, pivots = list_pixels(tree, high, wide)
    edges, edge_start, runs, run_start, rings = _indices(tree, pixels, start, pivots, high, wide)
    sizes = np.diff(start)
    updates = (sizes - pivots) * (sizes - pivots + 1) // 2
    return Program(
        height=high,
        width=wide,
        pixels=pixels,
        start=start,
        pivots=pivots,
        rings=rings,
        edge_start=edge_start,
        edges=edges.copy(),
        run_start=run_start,
        runs=runs.copy(),
        factor_start=np.concatenate([[0], np.cumsum(pivots * (pivots - 1) // 2 + pivots * (sizes - pivots))]),
        stack_size=int(_stack_size(sizes * (sizes + 1) // 2, updates, tree.halves)),
        largest=int(sizes.max()),
    )


@njit(cache=True, nogil=True)
def _indices(
    tree: Tree, pixels: Integers, start: Integers, pivots: Integers, high: int, wide: int
) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Return the edges and the runs of all fronts."""
    fronts = len(pivots)
    position = np.empty(high * wide, np.int64)
    for pixel in range(len(position)):
        position[pixel] = -1
    edges = np.empty((4 * high * wide, 2), np.int64)
    edge_start = np.zeros(fronts + 1, np.int64)
    runs = np.empty((2 * (len(pixels) + fronts), 3), np.int64)
    run_start = np.zeros(2 * fronts + 1, np.int64)
    rings = np.zeros((fronts, 2), np.int64)
    edge_count = run_count = 0
    for front in range(fronts):
        own = pixels[start[front] : start[front + 1]]
        size = len(own)
        for index in range(size):
            position[own[index]] = index
        for index in range(pivots[front]):
            row, column = own[index] // wide, own[index] % wide
            row_start = index * size - index * (index - 1) // 2 - index - 1
            for kind in range(4):
                for sign in (-1, 1):
                    down, right = sign * _STEPS[kind, 0], sign * _STEPS[kind, 1]
                    if 0 <= row + down < high and 0 <= column + right < wide:
                        other = position[(row + down) * wide + column + right]
                        if other > index:
                            upper, first = min(row, row + down), min(column, column + right)
                            edges[edge_count, 0] = row_start + other
                            edges[edge_count, 1] = kind * high * wide + upper * wide + first
                            edge_count += 1
        edge_start[front + 1] = edge_count
        for half in range(2):
            node = tree.halves[front, half]
            if node >= 0:
                ring = pixels[start[node] + pivots[node] : start[node + 1]]
                rings[front, half] = len(ring)
                run_count = append_runs(ring, position, size, runs, run_count)
            run_start[2 * front + half + 1] = run_count
        for index in range(size):
            position[own[index]] = -1
    return edges[:edge_count], edge_start, runs[:run_count], run_start, rings


@njit(cache=True, nogil=True)
def _stack_size(fronts: Integers, updates: Integers, halves: Integers) -> int:
    """Return the maximum size of the stack.

    Each front is placed on top of the updates of its halves, and its own update then replaces all of them.
    """
    size = 0
    largest = 0
    for front in range(len(fronts)):
        largest = max(largest, size + fronts[front])
        for half in range(2):
            if halves[front, half] >= 0:
                size -= updates[halves[front, half]]
        size += updates[front]
    return largest
