"""Errors that the user can fix: the command line prints their message instead of a traceback."""

import errno
from collections.abc import Callable, Iterable
from difflib import get_close_matches

# Errors of the operating system that a user can remedy: permissions, full or failing disks, and impossible names.
SYSTEM_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ESTALE,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


class InputError(ValueError):
    """A file, folder or setting is invalid; the message contains its name, what was found and what was expected.

    Characters that cannot be printed, such as those of damaged files, are escaped as in Python.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in message))


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder does not exist."""


class UsageError(InputError):
    """A command line is invalid for its subcommand."""


def is_system_error(error: BaseException) -> bool:
    """Return whether the operating system refuses to read or write a file, which a user can remedy."""
    return isinstance(error, OSError) and error.errno in SYSTEM_ERRORS


def suggestion(name: str, names: Iterable[str], show: Callable[[str], str] = str) -> str:
    """Suggest the valid name that is closest to a mistyped one.

    Args:
        name: The mistyped name.
        names: All valid names.
        show: Converts a valid name to the text that is suggested.

    Returns:
        `` Did you mean X?``, or an empty string if no valid name is similar.
    """
    matches = get_close_matches(name, names, n=1)
    return f" Did you mean {show(matches[0])}?" if matches else ""
