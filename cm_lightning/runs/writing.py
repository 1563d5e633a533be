"""Files that are written beside their final name and renamed, so that an interruption leaves no incomplete file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replace a file only when its new contents are complete and on the disk.

    Args:
        path: The file, which does not have to exist. Its folder is created if necessary.

    Yields:
        File in the same folder to which the contents are written. It is removed if an error occurs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays the last part, since libraries select the format by it.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
