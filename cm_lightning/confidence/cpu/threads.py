"""Threads of the CPU engine."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")

# Minimum number of rows of a block that is processed by one thread.
MIN_BLOCK_ROWS = 32


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Threads that share the items of a task; a context manager.

    Args:
        threads: Number of threads. With one thread, everything runs on the calling thread.

    Attributes:
        threads: Number of threads.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Call a function for all items, and wait for the calls.

        Args:
            work: Function that releases the GIL for most of its time.
            items: Its arguments.
        """
        if self._pool is None or len(items) <= 1:
            for item in items:
                work(item)
        else:
            list(self._pool.map(work, items))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()


# Everything runs on the calling thread.
ONE_THREAD = Workers(1)


def row_blocks(rows: int, workers: Workers) -> list[tuple[int, int]]:
    """Divide rows into a block for each thread.

    Args:
        rows: Number of rows.
        workers: The threads.

    Returns:
        First row and end row of every block.
    """
    blocks = max(1, min(workers.threads, rows // MIN_BLOCK_ROWS))
    ends = [rows * block // blocks for block in range(blocks + 1)]
    return list(pairwise(ends))
