"""The command line: picks the subcommand, and imports no more than that one needs."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches

import cm_lightning
from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.stages import STAGES, check_options
from cm_lightning.errors import InputError, UsageError

SUBCOMMANDS = STAGES | OWN_COMMANDS


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments after the program's name. By default those of the process, which then ends with a sentence and
            status 2 where the input is at fault; it always does where the command line is.

    Raises:
        InputError: The input is at fault, and ``args`` were given.
    """
    try:
        run(sys.argv[1:] if args is None else list(args))
    except InputError as error:
        if args is not None and not isinstance(error, UsageError):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(argv: list[str]) -> None:
    """Run the subcommand that a command line names; an option before it is Lightning's to understand."""
    name = argv[0] if argv else "--help"
    if name in OWN_COMMANDS:
        importlib.import_module(f"cm_lightning.commands.{name}").run(argv[1:])
    elif name in STAGES or (name.startswith("-") and not STAGES.keys().isdisjoint(argv)):
        check_options(argv)
        importlib.import_module("cm_lightning.cli").run_stage(argv)
    elif name in ("-h", "--help", "--version"):
        parser = argparse.ArgumentParser(prog="cm_lightning", description=cm_lightning.__doc__)
        parser.add_argument("--version", action="version", version=f"cm_lightning {cm_lightning.__version__}")
        subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
        for subcommand, about in SUBCOMMANDS.items():
            subparsers.add_parser(subcommand, help=about)
        parser.epilog = "Each has a --help of its own."
        parser.parse_args([name])
    else:
        nearest = get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(SUBCOMMANDS)}."
        raise UsageError(f"There is no subcommand {name!r}; {hint}")
