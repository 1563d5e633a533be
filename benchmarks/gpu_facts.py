"""Facts that the steps of the GPU benchmark find out, and the files in which they are stored."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# Longest message of a failure in the table, in characters.
LONGEST_MESSAGE = 500


@dataclass(frozen=True)
class Fact:
    """One row of the table.

    Args:
        step: Step of the benchmark.
        what: What was measured.
        value: The measured value with its unit, or the message of a failure.
        failed: Whether this is a failure.
    """

    step: str
    what: str
    value: str
    failed: bool = False


class Recorder:
    """Writes the facts of one step to a file at once, so that they are not lost if the process ends.

    Args:
        file: File with one JSON object per line.
        step: Step of the benchmark.
    """

    def __init__(self, file: Path, step: str) -> None:
        self._file = file
        self._step = step
        self._start = time.perf_counter()

    def add(self, what: str, value: object) -> None:
        """Record and print a fact.

        Args:
            what: What was measured.
            value: The measured value with its unit.
        """
        self._write(Fact(self._step, what, str(value)))

    def fail(self, what: str, message: str) -> None:
        """Record and print a failure.

        Args:
            what: What was attempted.
            message: What happened; only its end is stored.
        """
        self._write(Fact(self._step, what, message.strip()[-LONGEST_MESSAGE:], failed=True))

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Record an exception as a failure, and continue after the block.

        Args:
            what: What is attempted.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception:
            self.fail(what, last_lines(traceback.format_exc(), 5))

    def _write(self, fact: Fact) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(fact)) + "\n")
        mark = "FAILED: " if fact.failed else ""
        print(f"  {time.perf_counter() - self._start:5.1f} s  {fact.what}: {mark}{fact.value}"[:300], flush=True)


def read_facts(file: Path) -> list[Fact]:
    """Read the facts of a step.

    Args:
        file: File that was written by a :class:`Recorder`.

    Returns:
        The facts, without an incomplete last line.
    """
    facts = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            facts.append(Fact(**json.loads(line)))
        except ValueError:  # the process was ended while it wrote this line
            break
    return facts


def last_lines(text: str, count: int) -> str:
    """Return the last lines of a text that are not empty."""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])


def write_results(facts: list[Fact], folder: Path, machine: str, command: str) -> str:
    """Write the Markdown table and the same facts as JSON.

    Args:
        facts: All facts and failures so far.
        folder: Folder of ``gpu.md`` and ``gpu.json``.
        machine: Description of the machine.
        command: Command of the benchmark.

    Returns:
        The text of the Markdown file.
    """
    lines = [f"Machine: {machine}. Command: `{command}`.", "", "| what | value |", "| --- | --- |"]
    lines += [f"| {fact.step}: {_cell(fact.what)} | {_cell(fact.value)} |" for fact in facts if not fact.failed]
    failures = [fact for fact in facts if fact.failed]
    lines += ["", f"Failures: {len(failures) or 'none'}."]
    for fact in failures:
        lines += ["", f"- {fact.step}: {fact.what}", "", *(f"      {line}" for line in fact.value.splitlines())]
    text = "\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.md").write_text(text, encoding="utf-8")
    content = {"machine": machine, "command": command, "facts": [asdict(fact) for fact in facts]}
    (folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return text


def _cell(text: str) -> str:
    """Make a text fit into one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
