"""Gathering of objects from all processes of a distributed run."""

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_objects(items: list[Any]) -> list[Any]:
    """Concatenate the lists of all processes in the order of their ranks.

    All processes must call this function equally often.

    Args:
        items: Items of this process, which must be picklable.

    Returns:
        Items of all processes, equal on each of them. Without distributed training, this is a copy of the list.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(items)
    parts: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def gather_cases(cases: dict[str, T]) -> dict[str, T]:
    """Merge the results per case of all processes.

    The distributed sampler repeats cases so that all processes get the same number. Repeated cases are counted once.

    Args:
        cases: Results of this process by the id of the case.

    Returns:
        Results of all processes by the id of the case, equal on each of them.
    """
    return dict(gather_objects(list(cases.items())))
