"""Factorisation of the linear systems of many frames at once, and forward and backward substitution."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cm_lightning.confidence.cuda.arena import Arena
from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.pattern import FACTOR, INNER, PATTERN, RING, WEIGHTS
from cm_lightning.confidence.cuda.schedule import ASSEMBLED_ROWS, TILE, schedule
from cm_lightning.confidence.graph import RandomWalkGraph

# Number of values of the update of a cell: a weight for each pair of ring pixels, followed by their slacks.
CELL_UPDATE = WEIGHTS - FACTOR + RING
# Limits of the number of threads per block in the substitution of a front, which is about one thread per pixel.
MIN_THREADS, MAX_THREADS = 64, 256


class Tables(NamedTuple):
    """Schedule and pattern of the cells on the device, in the format of ``kernels.cu``."""

    corners: Array
    fronts: Array
    nodes: Array
    in_first: Array
    in_second: Array
    levels: tuple[Array, ...]
    rows: Array
    columns: Array
    row_start: Array
    neighbours: Array
    target_start: Array
    targets: Array
    edges: Array


@lru_cache(maxsize=16)
def upload_tables(device: Device, shape: tuple[int, int]) -> Tables:
    """Copy the tables of a shape to a device. Tables of the last 16 shapes are cached.

    Args:
        device: The device.
        shape: Shape of the grid, ``(depth, lateral)``.

    Returns:
        The tables.
    """
    plan = schedule(*shape)
    neighbours = np.diff(PATTERN.row_start)
    pairs = neighbours * (neighbours - 1) // 2
    keep = device.keep
    tables = Tables(
        corners=keep(plan.corners),
        fronts=keep(plan.fronts),
        nodes=keep(plan.nodes),
        in_first=keep(plan.in_first),
        in_second=keep(plan.in_second),
        levels=tuple(keep(level.fronts) for level in plan.levels),
        rows=keep(PATTERN.rows.astype(np.int32)),
        columns=keep(PATTERN.columns.astype(np.int32)),
        row_start=keep(PATTERN.row_start.astype(np.int32)),
        neighbours=keep(PATTERN.neighbours.astype(np.int32)),
        target_start=keep((np.cumsum(pairs) - pairs).astype(np.int32)),
        targets=keep(PATTERN.targets.astype(np.int16)),
        edges=keep(np.ascontiguousarray(PATTERN.edges, dtype=np.int32)),
    )
    # The tables may be used next by another stream, and any stream may still use the tables that the cache now removes.
    device.synchronize()
    return tables


class BatchFactor:
    """Factors of the linear systems of several frames.

    Args:
        device: The device.
        graph: Linear systems on the device, C-contiguous, ``(frames, depth, lateral)``.
        precision: Type of the factor.
        arena: Memory for all arrays.

    Attributes:
        underflowed: Frames in which all weights of an unknown pixel became 0 in the type of the factor, uint8,
            ``(frames,)``. They cannot be solved with this factor.
    """

    def __init__(self, device: Device, graph: RandomWalkGraph, precision: Precision, arena: Arena) -> None:
        self._device = device
        self._launch = device.kernels(precision)
        self._frames, depth, lateral = graph.slack.shape
        self._shape = (depth, lateral)
        self._pixels = depth * lateral
        self._plan = schedule(depth, lateral)
        self._tables = upload_tables(device, self._shape)
        self._precision = precision
        self._arena = arena
        cells = len(self._plan.corners)
        self._cell_rows = self._empty(cells * FACTOR)
        self._cell_pivots = self._empty(cells * INNER)
        self._rows = self._empty(self._plan.factor_size)
        self.underflowed = arena.zeros((self._frames,), np.uint8)
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
            (cells, 1, self._frames),
            (32,),
            *arguments,
            cells,
            *(tables.corners, tables.rows, tables.columns, tables.row_start, tables.neighbours),
            *(tables.target_start, tables.targets, tables.edges, len(tables.edges)),
            *(self._cell_rows, self._cell_pivots, updates, self.underflowed),
        )
        # The weights of a level are only needed for the next level, so two buffers are used alternately.
        buffers = [self._empty(size) for size in plan.work_sizes]
        for number, (level, members) in enumerate(zip(plan.levels, tables.levels, strict=True)):
            work, below = buffers[number % 2], buffers[(number + 1) % 2]
            sizes = (plan.work_sizes[number % 2], plan.work_sizes[(number + 1) % 2])
            count = len(level.fronts)
            launch(
                "assemble",
                (count, -(-level.largest // ASSEMBLED_ROWS), self._frames),
                (32, 4),
                *arguments,
                *(members, tables.fronts, tables.nodes, tables.in_first, tables.in_second),
                *(below, sizes[1], updates, cells, work, sizes[0]),
            )
            level_tables = (members, tables.fronts)
            for panel, remaining in enumerate(level.remaining):
                launch(
                    "invert_pivots",
                    (count, 1, self._frames),
                    (32, 4),
                    *(graph.unknown, self._pixels, *level_tables, tables.nodes, panel),
                    *(work, sizes[0], self._rows, plan.factor_size, self.underflowed),
                )
                if remaining == 0:  # the last pivots of the root
                    continue
                shared = (work, sizes[0], self._rows, plan.factor_size)
                column_tiles, tiles = -(-(remaining + 1) // TILE), -(-remaining // TILE)  # with and without the slack
                launch("multiply_rows", (count, column_tiles, self._frames), (TILE, 4), *level_tables, panel, *shared)
                launch("update", (count, tiles * tiles, self._frames), (16, 8), *level_tables, panel, tiles, *shared)

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
        cell_grid = (cells, 1, self._frames)
        launch(
            "reduce_cells",
            cell_grid,
            (32,),
            *(
                rhs,
                *self._shape,
                cells,
                *cell_tables,
                self._cell_pivots,
                skipped,
                self._solution,
                self._ring_contributions,
            ),
        )
        factor = (self._rows, plan.factor_size)
        vectors = (self._vectors, len(plan.nodes), self._solution)
        for level, members in zip(plan.levels, tables.levels, strict=True):
            threads = min(max(-(-level.largest // 32) * 32, MIN_THREADS), MAX_THREADS)
            launch(
                "reduce_fronts",
                (len(level.fronts), 1, self._frames),
                (threads,),
                *(rhs, self._pixels, members, tables.fronts, tables.nodes, tables.in_first, tables.in_second),
                *(*factor, self._ring_contributions, cells, skipped, *vectors),
            )
        for level, members in zip(plan.levels[::-1], tables.levels[::-1], strict=True):
            launch(
                "substitute_fronts",
                (len(level.fronts), 1, self._frames),
                (32, min(max(level.largest // 32, MIN_THREADS // 32), MAX_THREADS // 32)),
                *(self._pixels, members, tables.fronts, tables.nodes, *factor, skipped, *vectors),
            )
        launch("substitute_cells", cell_grid, (32,), *self._shape, cells, *cell_tables, skipped, self._solution)
        return self._solution


def graph_arguments(graph: RandomWalkGraph) -> tuple[Any, ...]:
    """Return the arguments for GRAPH_PARAMETERS of the kernels."""
    return (
        *(graph.vertical, graph.horizontal, graph.down_right, graph.down_left, graph.slack),
        *(graph.unknown, *graph.slack.shape[1:]),
    )
