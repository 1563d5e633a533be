"""Entry point of the command line. It imports only what the chosen subcommand needs."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

import cm_lightning
from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.stages import STAGES, check_options
from cm_lightning.config_files import check_config_files
from cm_lightning.errors import InputError, UsageError, is_system_error, suggestion
from cm_lightning.interruption import CONTINUE, Terminated, stop_signals_as_exceptions

SUBCOMMANDS = STAGES | OWN_COMMANDS


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments after the program's name; by default those of the process. In that case invalid input ends
            the process with one sentence and status 2. An invalid command line always does.

    Raises:
        InputError: The input is invalid and ``args`` were given.
    """
    # Log files of libraries on a full disk would print a traceback for every line.
    logging.raiseExceptions = False
    try:
        with stop_signals_as_exceptions():
            run(sys.argv[1:] if args is None else list(args))
    except KeyboardInterrupt as error:
        print(error.args[0] if error.args else CONTINUE, file=sys.stderr)
        sys.exit(130)
    except Terminated as error:
        print(error.message or CONTINUE, file=sys.stderr)
        raise
    except InputError as error:
        if args is not None and not isinstance(error, UsageError):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(argv: list[str]) -> None:
    """Run the subcommand of a command line. Options in front of the subcommand are left to Lightning's parser.

    Raises:
        InputError: The input is invalid, or the operating system refuses to read or write a file.
    """
    try:
        _run(argv)
    except OSError as error:
        if not is_system_error(error):
            raise
        place = "A file" if error.filename is None else error.filename
        raise InputError(f"{place} cannot be read or written: {error.strerror}.") from error


def _run(argv: list[str]) -> None:
    check_config_files(argv)
    name = argv[0] if argv else "--help"
    if name in OWN_COMMANDS:
        importlib.import_module(f"cm_lightning.commands.{name}").run(argv[1:])
    elif name in STAGES or (name.startswith("-") and not STAGES.keys().isdisjoint(argv)):
        check_options(argv)
        importlib.import_module("cm_lightning.cli").run_stage(argv, STAGES)
    elif name in ("-h", "--help", "--version"):
        parser = argparse.ArgumentParser(prog="cm_lightning", description=cm_lightning.__doc__)
        parser.add_argument("--version", action="version", version=f"cm_lightning {cm_lightning.__version__}")
        subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
        for subcommand, description in SUBCOMMANDS.items():
            subparsers.add_parser(subcommand, help=description)
        parser.epilog = "Every subcommand has its own --help."
        parser.parse_args([name])
    else:
        hint = suggestion(name, SUBCOMMANDS) or f" Expected one of {', '.join(SUBCOMMANDS)}."
        raise UsageError(f"There is no subcommand {name!r}.{hint}")
