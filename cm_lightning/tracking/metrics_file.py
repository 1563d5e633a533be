"""The file of logged metrics, whose rows survive interruptions of the run."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from cm_lightning.runs import FoldFolder
from cm_lightning.writing import named_errors, replaced

Row = Mapping[str, Any]


class AppendingWriter(ExperimentWriter):
    """Writer of ``metrics.csv`` that never deletes rows; Lightning's deletes those of earlier starts of the run.

    New rows are appended. If a new column makes a new header necessary, the file is written beside its name and
    renamed.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._file = FoldFolder(folder).metrics
        self._saved_rows = 0
        if self._file.is_file():
            rows = read_rows(self._file)
            self._write(rows)  # without the line that a kill has cut

    @property
    def rows(self) -> int:
        """Number of rows that have been logged, including those of earlier starts of the run."""
        return self._saved_rows + len(self.metrics)

    def digest(self, rows: int) -> str:
        """Return a digest of the first rows, by which a checkpoint finds the file of its run.

        Args:
            rows: Number of rows that have been saved.
        """
        table = read_rows(self._file)[:rows] if self._file.is_file() else []
        return hashlib.blake2b(json.dumps([sorted(row.items()) for row in table]).encode()).hexdigest()

    def save(self) -> None:
        """Append the rows that have not been saved yet to the file."""
        number = len(self.metrics)
        with named_errors(self._file):
            super().save()
        self._saved_rows += number

    def rewind(self, rows: int, pending: Row | None) -> None:
        """Return to the state of a checkpoint: remove the rows of steps that will be repeated.

        Rows of tests are kept.

        Args:
            rows: Number of rows when the checkpoint was saved.
            pending: Row of the epoch that ended with the checkpoint, which Lightning logs later; None within an epoch.
        """
        before = read_rows(self._file) if self._file.is_file() else []
        kept = [*before[:rows], *([pending] if pending else [])]
        tests = [row for row in before[rows:] if any(key.startswith("test/") for key in row)]
        self.metrics = []
        self._write([*kept, *tests])

    def _write(self, rows: Iterable[Row]) -> None:
        """Replace the file."""
        table = list(rows)
        self.metrics_keys = sorted({key for row in table for key in row})
        self._saved_rows = len(table)
        with replaced(self._file) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(table)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        rows = read_rows(self._file)
        with replaced(self._file) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Do not delete the file of earlier starts, as Lightning would."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read logged metrics, without a last line that was cut when the process was killed.

    Args:
        path: The CSV file.

    Returns:
        The values of every row that are not empty, by column.
    """
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    table = csv.reader(lines)
    header = next(table, [])
    return [
        {key: value for key, value in zip(header, row, strict=True) if value != ""}
        for row in table
        if len(row) == len(header)
    ]
