"""Factorisation of the linear systems of many frames at once, and forward and backward substitution."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.cuda.arena import Arena
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.pattern import FACTOR, INNER, PATTERN, RING, WEIGHTS
from cm_lightning.confidence.cuda.schedule import (
    ASSEMBLED_ROWS,
    CELLS_PER_BLOCK,
    PIVOTS,
    SHARED_BYTES,
    SIZE,
    TILE,
    Schedule,
    most_remaining,
    schedule,
    shared_values,
)
from cm_lightning.confidence.graph import RandomWalkGraph

# Number of values of the update of a cell: a weight for each pair of ring pixels, followed by their slacks.
CELL_UPDATE = WEIGHTS - FACTOR + RING
# Minimum and maximum number of warps of 32 threads for a small front, and number of pixels per warp. While one of the
# warps eliminates pivots, the others wait, so that many fronts at once are better than many warps per front.
MIN_WARPS, MAX_WARPS, PIXELS_PER_WARP = 2, 8, 24


class SmallFronts(NamedTuple):
    """Fronts of a level that are eliminated in shared memory.

    Attributes:
        fronts: Indices of the fronts on the device, int32, ``(fronts,)``.
        warps: Number of warps per front.
        shared_bytes: Maximum shared memory of a front.
    """

    fronts: Array
    warps: int
    shared_bytes: int


class LargeFronts(NamedTuple):
    """Fronts of a level that are eliminated in global memory.

    Attributes:
        fronts: Indices of the fronts on the device, int32, ``(fronts,)``.
        largest: Maximum number of pixels of a front.
        remaining: For each panel of pivots, the maximum number of pixels of a front after these pivots.
    """

    fronts: Array
    largest: int
    remaining: tuple[int, ...]


class Tables(NamedTuple):
    """Schedule and pattern of the cells on the device, in the format of ``factor.cu``.

    Levels consist of small and large fronts, None if there are none. Stages consist of groups, steps and the number of
    warps per group, as in the schedule.
    """

    corners: Array
    fronts: Array
    nodes: Array
    in_first: Array
    in_second: Array
    levels: tuple[tuple[SmallFronts | None, LargeFronts | None], ...]
    order: Array
    stages: tuple[tuple[Array, Array, int], ...]
    rows: Array
    columns: Array
    row_start: Array
    neighbours: Array
    pair_start: Array
    pairs: Array
    edges: Array


@lru_cache(maxsize=16)
def upload_tables(device: Device, shape: tuple[int, int], itemsize: int) -> Tables:
    """Copy the tables of a shape to a device. The last 16 tables are cached.

    Args:
        device: The device.
        shape: Shape of the grid, ``(depth, lateral)``.
        itemsize: Size of the type of the factor in bytes, which determines the fronts that fit into shared memory.

    Returns:
        The tables.
    """
    plan = schedule(*shape)
    neighbours = np.diff(PATTERN.row_start)
    keep = device.keep
    tables = Tables(
        corners=keep(plan.corners),
        fronts=keep(plan.fronts),
        nodes=keep(plan.nodes),
        in_first=keep(plan.in_first),
        in_second=keep(plan.in_second),
        levels=tuple(_split_level(device, plan, level, itemsize) for level in plan.levels),
        order=keep(plan.order),
        stages=tuple((keep(stage.groups), keep(stage.steps), stage.warps) for stage in plan.stages),
        rows=keep(PATTERN.rows.astype(np.int32)),
        columns=keep(PATTERN.columns.astype(np.int32)),
        row_start=keep(PATTERN.row_start.astype(np.int32)),
        neighbours=keep(PATTERN.neighbours.astype(np.int32)),
        pair_start=keep(np.concatenate([[0], np.cumsum(neighbours * (neighbours - 1) // 2)]).astype(np.int32)),
        pairs=keep(_pairs()),
        edges=keep(np.ascontiguousarray(PATTERN.edges, dtype=np.int32)),
    )
    # The tables may be used next by another stream, and any stream may still use the tables that the cache now removes.
    device.synchronize()
    return tables


def _split_level(
    device: Device, plan: Schedule, members: NDArray[np.int32], itemsize: int
) -> tuple[SmallFronts | None, LargeFronts | None]:
    """Separate the small fronts of a level, whose panels fit into shared memory with two short integers per pixel."""
    pivots, sizes = plan.fronts[members, PIVOTS], plan.fronts[members, SIZE]
    shared_bytes = itemsize * shared_values(pivots, sizes) + 4 * (sizes + 1)
    small = shared_bytes <= SHARED_BYTES
    small_fronts = large_fronts = None
    if small.any():
        warps = min(max(round(float(sizes[small].mean()) / PIXELS_PER_WARP), MIN_WARPS), MAX_WARPS)
        small_fronts = SmallFronts(device.keep(members[small]), warps, int(shared_bytes[small].max()))
    if not small.all():
        remaining = most_remaining(pivots[~small], sizes[~small])
        large_fronts = LargeFronts(device.keep(members[~small]), int(sizes[~small].max()), remaining)
    return small_fronts, large_fronts


def _pairs() -> NDArray[np.int32]:
    """Return the pairs of neighbours of all pixels of a cell, in the format of ``eliminate_cells``."""
    pairs = []
    for neighbours in np.diff(PATTERN.row_start):
        first, second = np.triu_indices(neighbours, 1)
        pairs.append(first << 11 | second << 17)
    return (np.concatenate(pairs) | PATTERN.targets).astype(np.int32)


class BatchFactor:
    """Factors of the linear systems of several frames.

    Args:
        device: The device.
        graph: Linear systems on the device, C-contiguous, ``(frames, depth, lateral)``.
        precision: Type of the factor.
        arena: Memory for all arrays.
        underflowed: Output, initially 0: nonzero for frames in which all weights of an unknown pixel became 0 in the
            type of the factor, int32, ``(frames,)``. They cannot be solved with this factor.
    """

    def __init__(
        self, device: Device, graph: RandomWalkGraph, precision: Precision, arena: Arena, underflowed: Array
    ) -> None:
        self._device = device
        self._launch = device.kernels(precision)
        self._frames, depth, lateral = graph.slack.shape
        self._shape = (depth, lateral)
        self._pixels = depth * lateral
        self._plan = schedule(depth, lateral)
        self._tables = upload_tables(device, self._shape, precision().itemsize)
        self._precision = precision
        self._arena = arena
        cells = len(self._plan.corners)
        self._cell_grid = (-(-cells // CELLS_PER_BLOCK), 1, self._frames)
        self._cell_rows = self._empty(cells * FACTOR)
        self._cell_pivots = self._empty(cells * INNER)
        self._rows = self._empty(self._plan.factor_size)
        self._underflowed = underflowed
        with arena.temporary():
            self._eliminate(graph)
        # Memory of the substitution: contributions of cells and of fronts to their rings, and the solution.
        self._ring_contributions = self._empty(cells * RING)
        self._vectors = self._empty(len(self._plan.nodes))
        self._solution = self._empty(self._pixels).reshape(self._frames, depth, lateral)

    def _empty(self, size: int) -> Array:
        """Take an array of the type of the factor for all frames from the arena."""
        return self._arena.take((self._frames, size), self._precision)

    def _eliminate(self, graph: RandomWalkGraph) -> None:
        """Eliminate the cells, and then the fronts level by level."""
        tables, plan, launch = self._tables, self._plan, self._launch
        arguments = graph_arguments(graph)
        cells = len(plan.corners)
        updates = self._empty(cells * CELL_UPDATE)
        launch(
            "eliminate_cells",
            self._cell_grid,
            (32, CELLS_PER_BLOCK),
            *arguments,
            cells,
            *(tables.corners, tables.rows, tables.columns, tables.row_start, tables.neighbours),
            *(tables.pair_start, tables.pairs, tables.edges, len(tables.edges)),
            *(self._cell_rows, self._cell_pivots, updates, self._underflowed),
        )
        # The weights of a level are only needed for the next level, so two buffers are used alternately.
        buffers = [self._empty(size) for size in plan.work_sizes]
        factor = (self._rows, plan.factor_size)
        pixels = (tables.nodes, tables.in_first, tables.in_second)
        for number, (small, large) in enumerate(tables.levels):
            work = (buffers[number % 2], plan.work_sizes[number % 2])
            halves = (buffers[(number + 1) % 2], plan.work_sizes[(number + 1) % 2], updates, cells)
            if small is not None:
                launch(
                    "eliminate_fronts",
                    (len(small.fronts), 1, self._frames),
                    (32, small.warps),
                    *(*arguments, small.fronts, tables.fronts, *pixels, *halves, *work, *factor, self._underflowed),
                    shared_bytes=small.shared_bytes,
                )
            if large is not None:
                count = len(large.fronts)
                members = (large.fronts, tables.fronts)
                launch(
                    "assemble",
                    (count, -(-large.largest // ASSEMBLED_ROWS), self._frames),
                    (32, 4),
                    *(*arguments, *members, *pixels, *halves, *work),
                )
                for panel, remaining in enumerate(large.remaining):
                    launch(
                        "eliminate_panel",
                        (count, 1, self._frames),
                        (32, 8),
                        *(graph.unknown, self._pixels, *members, tables.nodes, panel, *work, *factor),
                        self._underflowed,
                    )
                    if remaining > 0:  # not after the last pivots of the root
                        tiles = -(-remaining // TILE)
                        update_grid = (count, tiles * (tiles + 1) // 2, self._frames)
                        launch("update", update_grid, (16, 8), *members, panel, tiles, *work, *factor)

    def substitute(self, rhs: Array, skipped: Array) -> Array:
        """Solve the linear systems by forward and backward substitution, in the precision of the factor.

        Args:
            rhs: Right-hand sides, float64, ``(frames, depth, lateral)``, 0 at pixels with known values.
            skipped: Nonzero for frames that are skipped, int32, ``(frames,)``.

        Returns:
            Solutions, ``(frames, depth, lateral)``, which the next call overwrites.
        """
        tables, plan, launch = self._tables, self._plan, self._launch
        cells = len(plan.corners)
        cell_tables = (
            tables.corners,
            tables.rows,
            tables.columns,
            tables.row_start,
            tables.neighbours,
            self._cell_rows,
        )
        cell_block = (32, CELLS_PER_BLOCK)
        launch(
            "reduce_cells",
            self._cell_grid,
            cell_block,
            *(rhs, *self._shape, cells, *cell_tables, self._cell_pivots),
            *(skipped, self._solution, self._ring_contributions),
        )
        # Forward substitution in all stages, and backward substitution in reverse. The last stage does both at once.
        last = len(tables.stages) - 1
        forward = [(number, 1, int(number == last)) for number in range(last + 1)]
        backward = [(number, 0, 1) for number in range(last - 1, -1, -1)]
        for number, *directions in forward + backward:
            groups, steps, warps = tables.stages[number]
            launch(
                "substitute_fronts",
                (len(groups) - 1, 1, self._frames),
                (32, warps),
                *(*directions, rhs, self._pixels, groups, steps, tables.order, tables.fronts),
                *(tables.nodes, tables.in_first, tables.in_second, self._rows, plan.factor_size),
                *(self._ring_contributions, cells, skipped, self._vectors, len(plan.nodes), self._solution),
            )
        launch(
            "substitute_cells", self._cell_grid, cell_block, *self._shape, cells, *cell_tables, skipped, self._solution
        )
        return self._solution


def graph_arguments(graph: RandomWalkGraph) -> tuple[Any, ...]:
    """Return the arguments for GRAPH_PARAMETERS of the kernels."""
    return (
        *(graph.vertical, graph.horizontal, graph.down_right, graph.down_left, graph.slack),
        *(graph.unknown, *graph.slack.shape[1:]),
    )
