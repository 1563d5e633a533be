"""Work on all cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def run_on_all_cores(work: Callable[[int], None], count: int, most: int | None) -> None:
    """Call ``work(0)`` to ``work(count - 1)`` on threads.

    Args:
        work: Releases the GIL for most of its time.
        count: Number of calls.
        most: Calls in flight at a time; one a core if None.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, count, most or cores)
    if workers <= 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(max_workers=workers) as pool:
        list(pool.map(work, range(count)))
