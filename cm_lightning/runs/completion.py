"""Marker of a finished training run, by which it is told from an interrupted one."""

import json
import time
from pathlib import Path

from cm_lightning.writing import write_text


def mark_finished(path: Path, epochs: int) -> None:
    """Write the marker of a finished run.

    Args:
        path: JSON file.
        epochs: Number of trained epochs.
    """
    write_text(path, json.dumps({"epochs": epochs, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}) + "\n")
