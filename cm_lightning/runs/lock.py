"""Lock of the folder of a run, so that two processes never train in it."""

import os
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TextIO

from cm_lightning.errors import InputError

LOCK_FILE = "run.lock"

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class RunLock:
    """Lock of a folder that the operating system releases when the process ends, however it ends.

    Args:
        folder: Folder of the run, which is created if necessary.

    Raises:
        InputError: Another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        path = folder / LOCK_FILE
        self._file: TextIO = path.open("a+")
        if fcntl is None:
            return
        try:
            # A record lock is not inherited by the workers of data loaders, which may live longer than the run.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip()
            self._file.close()
            raise InputError(
                f"Another process ({owner or 'unknown'}) is training in {folder}; expected no other fit or crossval in "
                "this folder. Wait for it, or choose another --experiment."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        self._file.flush()

    def release(self) -> None:
        """Release the lock. If the run has written nothing else, its folder and that of the experiment are removed."""
        with suppress(OSError):  # the experiment has other folds, or the folder was removed
            if [path.name for path in self._folder.iterdir()] == [LOCK_FILE]:
                (self._folder / LOCK_FILE).unlink()
                self._folder.rmdir()
                self._folder.parent.rmdir()
        self._file.close()
