"""Fixture with two real processes, for tests of distributed gathering without a training."""

import multiprocessing
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SECONDS = 60  # a process whose partner has failed would wait forever


def _run(rank: int, function: Callable[[int], Any], store: Path, results: Any) -> None:
    torch.set_num_threads(1)  # threads of the parent process do not exist after a fork
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results.put((rank, function(rank)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture
def two_processes(tmp_path: Path) -> Callable[[Callable[[int], Any]], list[Any]]:
    """Call a function of the rank in two distributed processes, and return both results."""

    def call(function: Callable[[int], Any]) -> list[Any]:
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        store = tmp_path / uuid.uuid4().hex
        arguments = (function, store, results)
        processes = [context.Process(target=_run, args=(rank, *arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        try:
            returned = dict(results.get(timeout=SECONDS) for _ in processes)
            for process in processes:
                process.join(SECONDS)
        finally:
            for process in processes:
                process.kill()
        return [returned[rank] for rank in range(2)]

    return call
