"""Table of finished files, which is extended after every file, so that an interrupted run can go on."""

import csv
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TextIO

from cm_lightning.writing import named_errors, replaced

NAME = "confmap.csv"


@dataclass(frozen=True)
class Row:
    """Result for one file, as text.

    Attributes:
        file: Name of the input.
        output: Path of the map relative to the table; empty if it failed.
        status: ``ok`` or ``failed``.
        frames: Number of frames.
        depth: Number of rows of a frame.
        lateral: Number of columns of a frame.
        axes: Meaning of the axes of the file.
        geometry: Kind of the insonified region.
        score: Estimated probability that it is correct.
        up: Side of the frames at which the probe is.
        parameters: The geometry as JSON.
        mean_confidence: Mean confidence of insonified pixels.
        error_estimate: Largest estimated error of a map.
        error_bound: Largest proven bound of the error of a map; empty if it was not computed.
        direct_frames: Number of frames that were solved directly.
        seconds: Time to compute the maps.
        remarks: Decisions and doubts, or the reason for the failure.
        key: Digest of settings, size and time of the input. A map with the same key is not computed again.
    """

    file: str
    output: str = ""
    status: str = "failed"
    frames: str = ""
    depth: str = ""
    lateral: str = ""
    axes: str = ""
    geometry: str = ""
    score: str = ""
    up: str = ""
    parameters: str = ""
    mean_confidence: str = ""
    error_estimate: str = ""
    error_bound: str = ""
    direct_frames: str = ""
    seconds: str = ""
    remarks: str = ""
    key: str = ""


class ResultTable:
    """CSV file with one row per input.

    Args:
        folder: Folder of the file. Rows of an earlier run in it are kept.

    Attributes:
        rows: The last row of every input by its name.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self.rows: dict[str, Row] = {}
        names = {field.name for field in fields(Row)}
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                for values in csv.DictReader(file):
                    if names.issuperset(values) and None not in values.values():  # not the end of an interrupted run
                        self.rows[values["file"]] = Row(**values)

    def finished(self, name: str, key: str) -> bool:
        """Return whether the map of an input with a key was written by an earlier run, and still exists."""
        row = self.rows.get(name)
        return row is not None and row.status == "ok" and row.key == key and (self._path.parent / row.output).is_file()

    def add(self, row: Row) -> None:
        """Append a row to the file."""
        self.rows[row.file] = row
        is_new = not self._path.is_file()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with named_errors(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
                _write([row], file, header=is_new)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            if is_new:
                self._path.unlink(missing_ok=True)
            raise

    def save(self) -> None:
        """Write all rows anew, so that each input has one row."""
        with replaced(self._path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            _write(self.rows.values(), file, header=True)


def _write(rows: Iterable[Row], file: TextIO, header: bool) -> None:
    writer = csv.DictWriter(file, [field.name for field in fields(Row)])
    if header:
        writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
