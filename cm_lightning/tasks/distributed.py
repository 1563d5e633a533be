"""Gathering over the processes of a distributed run."""

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_objects(items: list[Any]) -> list[Any]:
    """Join the lists of all processes, in the order of their ranks.

    Every process has to call this, the same number of times.

    Args:
        items: This process's items; they can be pickled.

    Returns:
        The items of all processes, the same on each; without distributed training a copy of the list.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(items)
    parts: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def gather_cases(cases: dict[str, T]) -> dict[str, T]:
    """Join what all processes hold about their cases.

    The sampler of several processes repeats cases to fill the last batch; each of them is kept once.

    Args:
        cases: What this process holds, by the case's id.

    Returns:
        What all processes hold, by the case's id, the same on each process.
    """
    return dict(gather_objects(list(cases.items())))
