"""Comparison of the size that a file announces with the memory that is available, before anything is read."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cm_lightning.errors import InputError

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_CONTROL_GROUP = Path("/proc/self/cgroup")
GIB = 2**30


def available_memory() -> int:
    """Return the memory in bytes that this process can still take without swapping.

    On Linux, this is at most what the limits of its control groups leave, which Slurm and containers set.
    """
    return min([psutil.virtual_memory().available, *_left_by_control_groups()])


def check_memory(path: Path, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> None:
    """Check that the pixels of a file fit into memory.

    A small file can announce, or decompress to, far more pixels than there is memory for, by damage or by intent.

    Args:
        path: The file.
        shape: Number of values along every axis.
        dtype: Type of a value in memory.

    Raises:
        InputError: The pixels do not fit.
    """
    needed = dtype.itemsize
    for side in shape:  # Python integers do not overflow
        needed *= int(side)
    # Small files are not worth the question to the operating system.
    if needed <= GIB // 16:
        return
    available = available_memory()
    if needed > available:
        sizes = " x ".join(str(side) for side in shape)
        raise InputError(
            f"{path} contains {sizes} values of type {dtype.name}, which need {needed / GIB:.3g} GiB of memory; "
            f"expected at most the {available / GIB:.3g} GiB that are available."
        )


def _left_by_control_groups() -> list[int]:
    """Return the memory left by the limits of the control group of this process and of those above it (version 2)."""
    try:
        line = next(line for line in OWN_CONTROL_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = CONTROL_GROUPS / line.removeprefix("0::").lstrip("/")
    left = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(CONTROL_GROUPS):
            break
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # a group without a limit says "max"
            continue
        # Cached files are given up when memory is needed.
        left.append(max(0, limit - used + int(statistics.get("inactive_file", 0))))
    return left
