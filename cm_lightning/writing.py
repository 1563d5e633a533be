"""Files that appear only once they are complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Beginning of the names of unfinished files.
PARTIAL = ".partial-"


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add the name of a file to errors of the operating system that have none, such as that of a full disk.

    Args:
        path: The file that is written.

    Yields:
        Nothing.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def replaced(path: Path, is_shared: bool = False) -> Iterator[Path]:
    """Replace a file only when its new contents are complete and on the disk.

    The contents are written beside the file, so that renaming does not copy them. An interrupted process or a full disk
    leaves the earlier file as it was.

    Args:
        path: The file, which does not have to exist. Its folder is created if necessary.
        is_shared: Whether several processes or threads may write the file at the same time. Each of them then writes
            a file of its own; the last one stays.

    Yields:
        File in the same folder to which the contents are written. Its name ends like that of ``path``, since libraries
        choose the format by it. It is removed if an error occurs.
    """
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}" if is_shared else f"{PARTIAL}{path.name}")
    try:
        with named_errors(path):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, is_shared: bool = False) -> None:
    """Write a text file in UTF-8; see :func:`replaced`.

    Args:
        path: The file.
        text: Its contents.
        is_shared: Whether several processes may write the file at the same time.
    """
    with replaced(path, is_shared) as partial:
        partial.write_text(text, encoding="utf-8")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as a CSV file without its index; see :func:`replaced`.

    Args:
        path: The file.
        table: The table.
    """
    with replaced(path) as partial:
        table.to_csv(partial, index=False)
