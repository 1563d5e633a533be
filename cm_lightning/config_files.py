"""Checks of configuration files before they are parsed, and reading of JSON files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cm_lightning.errors import InputError

# Larger files are no configurations.
MAX_BYTES = 2**22
# Number of values of a file after all its references have been replaced by what they stand for.
MAX_VALUES = 100_000


def check_config_files(argv: Sequence[str]) -> None:
    """Check the files of all ``--config`` options of a command line.

    Args:
        argv: Command line. Values that are no existing files are left to the parser.

    Raises:
        InputError: A file is no text in UTF-8, no YAML, too large, or contains references that would become too large.
    """
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name not in ("--config", "-c"):
            continue
        path = Path(value if equals else "".join(argv[position + 1 : position + 2]))
        if path.is_file():
            check_config_file(path)


def check_config_file(path: Path) -> yaml.Node | None:
    """Check one configuration file; see :func:`check_config_files`.

    Args:
        path: The file.

    Returns:
        The YAML node of the file, whose values are not constructed; None if the file is empty.

    Raises:
        InputError: The file cannot be a configuration.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"The configuration {path} has {path.stat().st_size} bytes; expected a few settings in YAML."
            )
        text = path.read_bytes().decode("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InputError(f"The configuration {path} is not a text in UTF-8 ({error.reason}); expected YAML.") from error
    except RecursionError as error:
        raise InputError(f"The configuration {path} is nested too deeply; expected a few settings in YAML.") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The configuration {path} is not valid YAML: {reason}.") from error
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The configuration {path} cannot be read: {error.strerror or error}.") from error
    if node is not None and _number_of_values(node, {}) > MAX_VALUES:
        raise InputError(
            f"The configuration {path} contains references (&, *) that stand for more than {MAX_VALUES} values; "
            "expected a few settings."
        )
    return node


def read_config_file(path: Path) -> Any:
    """Check and read a configuration file.

    Args:
        path: The file.

    Returns:
        Its contents; None if it is empty.

    Raises:
        InputError: The file cannot be a configuration.
    """
    node = check_config_file(path)
    try:
        return None if node is None else yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # such as a tag of Python, or a date that does not exist
        reason = " ".join(str(error).split())
        raise InputError(f"The configuration {path} is not valid YAML: {reason}.") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: File in UTF-8, also with a byte-order mark.

    Returns:
        Its contents.

    Raises:
        InputError: The file cannot be read, or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as JSON: it is not a text in UTF-8 ({error.reason}).") from error
    except RecursionError as error:
        raise InputError(f"{path} cannot be read as JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _number_of_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values below a node, with those of references as often as they are used."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # of a node that contains itself
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_number_of_values(child, known) for child in children)
    return known[id(node)]
