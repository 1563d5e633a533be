"""Readers of what tools write: pytest, torch.profiler, Nsight Compute and Compute Sanitizer."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Parts of a solve, with the names of their kernels. Other kernels of the package belong to the set-up.
PARTS = {
    "factor": r"eliminate|assemble|invert|multiply_rows|update$|factor",
    "substitutions": r"reduce_|substitute",
    "iterations": r"multiply$|measure_|check_|judge|update_direction|take_step",
}
METRICS = {
    "Duration": "nanoseconds",
    "DRAM Throughput": "memory",
    "Compute (SM) Throughput": "processors",
    "Achieved Occupancy": "occupancy",
    "Registers Per Thread": "registers",
}


@dataclass(frozen=True)
class KernelTime:
    """GPU time of all launches of a kernel.

    Args:
        name: Name of the kernel.
        calls: Number of launches per solve.
        milliseconds: GPU time per solve.
    """

    name: str
    calls: float
    milliseconds: float


@dataclass(frozen=True)
class Profile:
    """What a GPU does during a solve.

    Args:
        kernels: All kernels and copies, with the longest first.
        launches: Number of kernels per solve.
        copies: Number of copies and fills of memory per solve.
        waits: Number of calls with which the CPU waits for the GPU per solve.
        busy_milliseconds: Time during which the GPU computes or copies, per solve.
    """

    kernels: list[KernelTime]
    launches: float
    copies: float
    waits: float
    busy_milliseconds: float

    def parts(self) -> dict[str, float]:
        """Return the GPU time of the parts of a solve in milliseconds."""
        times = dict.fromkeys(["set-up and rest", *PARTS], 0.0)
        for kernel in self.kernels:
            times[part_of(kernel.name)] += kernel.milliseconds
        return times


def part_of(kernel: str) -> str:
    """Return to which part of a solve a kernel belongs."""
    if is_own(kernel):
        for part, names in PARTS.items():
            if re.match(names, kernel):
                return part
    return "set-up and rest"


def is_own(kernel: str) -> bool:
    """Return whether a kernel is one of the package, by its name, and not one of CuPy, PyTorch or CUB."""
    return re.fullmatch(r"[a-z][a-z0-9_]*", kernel) is not None and not kernel.startswith("cupy_")


def read_trace(trace: dict[str, Any], solves: int) -> Profile:
    """Summarise a trace of torch.profiler in the format of Chrome.

    Args:
        trace: The trace.
        solves: Number of solves in the trace.

    Returns:
        What the GPU does during a solve.
    """
    calls: dict[str, int] = defaultdict(int)
    microseconds: dict[str, float] = defaultdict(float)
    intervals = []
    launches = copies = waits = 0
    for event in trace["traceEvents"]:
        category, name = event.get("cat"), event.get("name", "")
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            launches += category == "kernel"
            copies += category != "kernel"
            calls[name] += 1
            microseconds[name] += event["dur"]
            intervals.append((event["ts"], event["ts"] + event["dur"]))
        elif category in ("cuda_runtime", "cuda_driver"):
            waits += "Synchronize" in name
    kernels = [KernelTime(name, calls[name] / solves, microseconds[name] / 1000 / solves) for name in calls]
    return Profile(
        kernels=sorted(kernels, key=lambda kernel: -kernel.milliseconds),
        launches=launches / solves,
        copies=copies / solves,
        waits=waits / solves,
        busy_milliseconds=covered(intervals) / 1000 / solves,
    )


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


@dataclass
class KernelMetrics:
    """Metrics of all launches of a kernel; averages are weighted with the durations.

    Args:
        name: Name of the kernel.
        launches: Values of each launch by the names in :data:`METRICS`.
    """

    name: str
    launches: list[dict[str, float]] = field(default_factory=list)

    def summary(self) -> str:
        """Describe the launches in one line."""
        total = sum(launch.get("nanoseconds", 0.0) for launch in self.launches)

        def average(metric: str) -> float:
            weighted = [launch.get(metric, 0.0) * launch.get("nanoseconds", 0.0) for launch in self.launches]
            return sum(weighted) / total if total > 0 else 0.0

        registers = max(launch.get("registers", 0.0) for launch in self.launches)
        return (
            f"{len(self.launches)} launches, {total / 1e6:.2f} ms; DRAM {average('memory'):.0f} %, "
            f"SM {average('processors'):.0f} %, occupancy {average('occupancy'):.0f} %, {registers:.0f} registers"
        )


def read_metrics(output: str) -> list[KernelMetrics]:
    """Read the output of ``ncu --csv --print-units base``.

    Args:
        output: Output of the tool, of which other lines are ignored.

    Returns:
        Metrics of each kernel.
    """
    lines = output.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    launches: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in csv.DictReader(lines[first:]):
        metric = METRICS.get(row["Metric Name"])
        if metric is not None:
            # Older versions print thousands separators.
            launches[row["Kernel Name"].partition("(")[0], row["ID"]][metric] = float(
                row["Metric Value"].replace(",", "")
            )
    kernels: dict[str, KernelMetrics] = {}
    for (name, _), values in launches.items():
        kernels.setdefault(name, KernelMetrics(name)).launches.append(values)
    return list(kernels.values())


def read_sanitizer(output: str) -> tuple[str, list[str]]:
    """Read the output of compute-sanitizer.

    Args:
        output: Output of the tool.

    Returns:
        The summary of the tool (empty if it is missing), and the first lines that describe problems.
    """
    lines = [line.lstrip("= ").strip() for line in output.splitlines() if line.startswith("=========")]
    summaries = [line for line in lines if "SUMMARY" in line]
    problems = [line for line in lines if re.search(r"\b(Invalid|Error|Warning|hazard|Barrier)\b", line)]
    return (summaries[-1] if summaries else ""), [line for line in problems if line not in summaries][:4]


def read_tests(output: str) -> tuple[Counter[str], dict[str, str]]:
    """Read the output of ``pytest -v --tb=short``, which may be incomplete.

    Args:
        output: Output of pytest.

    Returns:
        Number of tests with each result (``PASSED``, ``FAILED``, ``ERROR``, ``SKIPPED``), and the message of each test
        that failed.
    """
    results = re.findall(r"^\S+?::(\S.*?) (PASSED|FAILED|SKIPPED|ERROR)\b", output, re.MULTILINE)
    failures = {}
    for test, result in results:
        if result in ("FAILED", "ERROR"):
            pattern = rf"^_+ .*{re.escape(test)} _+$(.*?)(?=^_+ .* _+$|^=+ )"
            section = re.search(pattern, output, re.MULTILINE | re.DOTALL)
            lines = [line for line in section[1].splitlines() if re.match(r"E  |\S+:\d+:", line)] if section else []
            failures[test] = "\n".join(lines[-5:]) or "failed"
    return Counter(result for _, result in results), failures
