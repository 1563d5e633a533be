"""A CSV logger that goes on where an interrupted run stopped."""

import csv
import warnings
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSV logger, keeping the rows that a run's folder already has.

    Lightning's own deletes them, so that a resumed run would lose its past.

    Args:
        folder: The run's folder; ``metrics.csv`` is written there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = Path(folder) / "metrics.csv"

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._file.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, holding the earlier rows until they are written again."""
        if self._experiment is None:
            rows: list[dict[str, Any]] = []
            if self._file.is_file():
                with self._file.open(newline="") as file:
                    rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
                self._file.unlink()
            with warnings.catch_warnings():
                # Lightning warns that it will delete what was just read and is written again.
                warnings.filterwarnings("ignore", message=".*logs directory.*exists and is not empty.*")
                writer = super().experiment
            writer.metrics.extend(rows)
            return writer
        return self._experiment
