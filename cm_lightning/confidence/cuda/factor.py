"""Elimination of many frames at a time, and the substitutions with its result."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cm_lightning.confidence.cuda.device import Array, Device, Precision
from cm_lightning.confidence.cuda.schedule import ASSEMBLED_ROWS, TILE, schedule
from cm_lightning.confidence.graph import RandomWalkGraph
from cm_lightning.confidence.pattern import FACTOR, INNER, PATTERN, RING, WEIGHTS

# What a cell leaves behind: a weight for each pair of ring pixels, then their slacks.
CELL_UPDATE = WEIGHTS - FACTOR + RING
# Threads of a block that substitutes on a front: about one for each of its pixels, within these bounds.
FEWEST_THREADS, MOST_THREADS = 64, 256


class Tables(NamedTuple):
    """A schedule and the cells' pattern in the device's memory, as kernels.cu wants them."""

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
    """Bring a shape's tables to a device; those of the last 16 are kept.

    Args:
        device: Where to.
        shape: ``(depth, lateral)``.

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
    # Another stream may use them next; and what the cache drops for them, this or another stream may still be using.
    device.synchronize()
    return tables


class BatchFactor:
    """Eliminated systems of several frames.

    Args:
        device: Where to compute.
        graph: The systems, ``(frames, depth, lateral)``, on the device and C-contiguous.
        precision: Type of the factor.

    Attributes:
        lost: Frames in which some unknown pixel lost all its weights in the factor's type, uint8, ``(frames,)``;
            they are not solved.
    """

    def __init__(self, device: Device, graph: RandomWalkGraph, precision: Precision) -> None:
        self._device = device
        self._launch = device.kernels(precision)
        self._frames, depth, lateral = graph.slack.shape
        self._shape = (depth, lateral)
        self._pixels = depth * lateral
        self._plan = schedule(depth, lateral)
        self._tables = upload_tables(device, self._shape)
        self._precision = precision
        cells = len(self._plan.corners)
        self._cell_rows = self._empty(cells * FACTOR)
        self._cell_pivots = self._empty(cells * INNER)
        self._rows = self._empty(self._plan.factor_size)
        self.lost = device.xp.zeros(self._frames, np.uint8)
        self._eliminate(graph)
        # Of the substitutions: what is passed on to rings, by cells and by fronts, and their result.
        self._passed_on = self._empty(cells * RING)
        self._vectors = self._empty(len(self._plan.nodes))
        self._solution = self._empty(self._pixels).reshape(self._frames, depth, lateral)

    def _empty(self, size: int) -> Array:
        """Allocate numbers of the factor's type for every frame."""
        return self._device.xp.empty((self._frames, size), self._precision)

    def _eliminate(self, graph: RandomWalkGraph) -> None:
        """Eliminate the cells, then level by level the fronts."""
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
            *(self._cell_rows, self._cell_pivots, updates, self.lost),
        )
        # A level's weights are read once more, by the next level; two buffers take turns.
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
            of_level = (members, tables.fronts)
            for panel, remaining in enumerate(level.remaining):
                launch(
                    "invert_pivots",
                    (count, 1, self._frames),
                    (32, 4),
                    *(graph.unknown, self._pixels, *of_level, tables.nodes, panel),
                    *(work, sizes[0], self._rows, plan.factor_size, self.lost),
                )
                if remaining == 0:  # the root's last pivots
                    continue
                shared = (work, sizes[0], self._rows, plan.factor_size)
                column_tiles, tiles = -(-(remaining + 1) // TILE), -(-remaining // TILE)  # with and without the slack
                launch("multiply_rows", (count, column_tiles, self._frames), (TILE, 4), *of_level, panel, *shared)
                launch("update", (count, tiles * tiles, self._frames), (16, 8), *of_level, panel, tiles, *shared)

    def substitute(self, right: Array, stopped: Array) -> Array:
        """Solve the systems with the factor, in its type.

        Args:
            right: Right-hand sides, float64, ``(frames, depth, lateral)``, 0 at pixels of known value.
            stopped: Frames to leave out, int32, ``(frames,)``, 0 for those to solve.

        Returns:
            The solutions, overwritten by the next call.
        """
        tables, plan, launch = self._tables, self._plan, self._launch
        cells = len(plan.corners)
        of_cells = (tables.corners, tables.rows, tables.columns, tables.row_start, tables.neighbours, self._cell_rows)
        cell_grid = (cells, 1, self._frames)
        launch(
            "reduce_cells",
            cell_grid,
            (32,),
            *(right, *self._shape, cells, *of_cells, self._cell_pivots, stopped, self._solution, self._passed_on),
        )
        factor = (self._rows, plan.factor_size)
        vectors = (self._vectors, len(plan.nodes), self._solution)
        for level, members in zip(plan.levels, tables.levels, strict=True):
            threads = min(max(-(-level.largest // 32) * 32, FEWEST_THREADS), MOST_THREADS)
            launch(
                "reduce_fronts",
                (len(level.fronts), 1, self._frames),
                (threads,),
                *(right, self._pixels, members, tables.fronts, tables.nodes, tables.in_first, tables.in_second),
                *(*factor, self._passed_on, cells, stopped, *vectors),
            )
        for level, members in zip(plan.levels[::-1], tables.levels[::-1], strict=True):
            launch(
                "substitute_fronts",
                (len(level.fronts), 1, self._frames),
                (32, min(max(level.largest // 32, FEWEST_THREADS // 32), MOST_THREADS // 32)),
                *(self._pixels, members, tables.fronts, tables.nodes, *factor, stopped, *vectors),
            )
        launch("substitute_cells", cell_grid, (32,), *self._shape, cells, *of_cells, stopped, self._solution)
        return self._solution


def graph_arguments(graph: RandomWalkGraph) -> tuple[Any, ...]:
    """List what kernels take as GRAPH_PARAMETERS."""
    return (
        *(graph.vertical, graph.horizontal, graph.down_right, graph.down_left, graph.slack),
        *(graph.unknown, *graph.slack.shape[1:]),
    )
