"""Files that appear only once they are complete."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file beside its final name, and rename it.

    Args:
        path: The file, whose folder is created if necessary.
        text: Its contents.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
