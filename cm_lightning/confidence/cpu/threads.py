"""Parallel calls on all CPU cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def run_on_all_cores(work: Callable[[int], None], count: int, max_threads: int | None) -> None:
    """Call ``work(0)`` to ``work(count - 1)`` on several threads.

    Args:
        work: Function that releases the GIL for most of its time.
        count: Number of calls.
        max_threads: Maximum number of simultaneous calls, which is also limited by the number of CPU cores; None for
            no other limit.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, count, max_threads or cores)
    if workers <= 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(max_workers=workers) as pool:
        list(pool.map(work, range(count)))
