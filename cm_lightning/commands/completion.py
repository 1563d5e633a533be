"""``completion``: complete subcommands and options in a shell."""

import importlib
import io
import re
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from typing import Literal

from cm_lightning.commands import OWN_COMMANDS
from cm_lightning.commands.stages import STAGES
from cm_lightning.errors import InputError
from cm_lightning.parsing import run_function

# An option at the beginning of its description in a help text.
OPTION = re.compile(r"^ +(?:-\w, )?--([\w.]+)", re.MULTILINE)


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print a script with which a shell completes the subcommands and options of cm_lightning.

    Args:
        shell: The shell, which reads the script at its start.
    """
    try:
        import shtab
    except ImportError:
        raise InputError(
            "Shell completion needs the package shtab, which is not installed; install it with "
            "pip install 'cm_lightning[completion]'."
        ) from None
    parser = ArgumentParser(prog="cm_lightning")
    subparsers = parser.add_subparsers()
    for name, description in (STAGES | OWN_COMMANDS).items():
        subparser = subparsers.add_parser(name, help=description)
        for option in options(name):
            subparser.add_argument(f"--{option}")
        subparser.add_argument("files", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))


def options(name: str) -> Iterator[str]:
    """List the options of a subcommand, as its help does.

    Args:
        name: Name of the subcommand.

    Yields:
        Names of options without dashes, such as ``data.root``.
    """
    output = io.StringIO()
    # Options of the task have a help of their own.
    for help_option in ("--help", "--model.help=SegmentationTask") if name in STAGES else ("--help",):
        with redirect_stdout(output), suppress(SystemExit):
            if name in STAGES:
                importlib.import_module("cm_lightning.cli").run_stage([name, help_option], STAGES)
            else:
                importlib.import_module(f"cm_lightning.commands.{name}").run([help_option])
    yield from (option for option in dict.fromkeys(OPTION.findall(output.getvalue())) if option != "help")


def run(argv: Sequence[str]) -> None:
    """Run the subcommand.

    Args:
        argv: Command line after ``completion``.
    """
    run_function("completion", completion, argv)
