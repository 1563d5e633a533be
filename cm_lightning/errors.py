"""Errors that a user can mend: the command line prints their sentence instead of a traceback."""


class InputError(ValueError):
    """A file, folder or setting is not what was expected; the message names it and says what was."""


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder is not there."""


class UsageError(InputError):
    """A command line is not one that its subcommand takes."""
