"""Subcommands as typed functions: the signature gives the options, the docstring their help."""

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser

from cm_lightning.errors import UsageError

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


class PlainErrors:
    """Makes a parser of jsonargparse say what is wrong in one sentence, without its usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the sentence.

        Args:
            message: What the parser says.
            ex: What it was caused by.

        Raises:
            UsageError: Always.
        """
        raise UsageError(explain(message, sorted(set(option_names(self))))) from ex


class CommandParser(PlainErrors, ArgumentParser):  # type: ignore[misc]
    """A parser of a subcommand of the project's own."""


def run_function(name: str, function: Callable[..., Any], argv: Sequence[str]) -> Any:
    """Call a typed function with the arguments of a command line.

    Args:
        name: Of the subcommand.
        function: What it does. Of the parameters without a default, those that are given by name alone are required
            options, the others positional.
        argv: Command line after the subcommand.

    Returns:
        What the function returns.

    Raises:
        UsageError: The command line is not one that the function takes.
    """
    parser = make_parser(name, function)
    known = set(option_names(parser))
    arguments = parser.parse_args([_with_underscores(word, known) for word in argv]).as_dict()
    return function(**{key: arguments[key] for key in inspect.signature(function).parameters})


def make_parser(name: str, function: Callable[..., Any], skip: Collection[str] = ()) -> CommandParser:
    """Make the parser of a typed function.

    Args:
        name: Of the subcommand.
        function: Its docstring describes it and every parameter. Lists are given as several words. Where it has no
            parameter ``config`` of its own, ``--config`` reads its options from a file.
        skip: Parameters that are no options.

    Returns:
        The parser, with ``--config`` and ``--print_config``.
    """
    docs = docstring_parser.parse(function.__doc__ or "")
    about = {parameter.arg_name: (parameter.description or "").replace("\n", " ") for parameter in docs.params}
    parser = CommandParser(prog=f"cm_lightning {name}", description=docs.description)
    hints = get_type_hints(function)
    if "config" not in hints:
        parser.add_argument("--config", action="config", help="YAML file with values of the options below.")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in skip:
            continue
        options: dict[str, Any] = {"help": about[parameter.name], "type": hints[parameter.name]}
        item = _item(hints[parameter.name])
        if item is not None:
            options |= {"type": item, "nargs": "+"}
        if parameter.default is inspect.Parameter.empty:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                parser.add_argument(f"--{parameter.name}", required=True, **options)
            else:
                parser.add_argument(parameter.name, **options)
            continue
        if hints[parameter.name] is bool:
            options |= {"nargs": "?", "const": True}  # --overwrite, or --overwrite true
        parser.add_argument(f"--{parameter.name}", default=parameter.default, **options)
    return parser


def check_exclusive(**options: Any) -> None:
    """Check that at most one of some options was given.

    Args:
        **options: Values by name; None for those that were not given.

    Raises:
        UsageError: Several were.
    """
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other; expected one of them.")


def option_names(parser: Any) -> Iterator[str]:
    """List the options of a parser and of its subcommands, with their leading dashes."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                yield from option_names(subparser)


def explain(message: str, options: Sequence[str]) -> str:
    """Turn a parser's message into a sentence that names the option, what was found and what was expected.

    Args:
        message: A message of jsonargparse.
        options: All options, with their leading dashes.

    Returns:
        The sentence.
    """
    message = " ".join(message.split())
    # Of a class that may be left out, or one of several types: what is wrong with the first of them.
    if match := re.match(r'Parser key "([^"]+)": .*Errors: - (.*?) - Expected a .*?Given value: (.*)', message):
        return _within(match[1], match[2], match[3])
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown(match[1].partition("=")[0], options)
    if match := re.search(r"(?:Option|accept option) '([^']+)'", message):
        return _unknown(f"--{match[1]}", options)
    if match := re.match(r'Parser key "([^"]+)": Expected a typing\.Literal\[(.*)\]\. Got value: (.*)', message):
        return _choice(match[1], match[2], match[3])
    if match := re.match(r'Parser key "([^"]+)"[^:]*: Expected a <class \'(\w+)\'>\. Got value: (.*)', message):
        return f"{match[1]} must be {KINDS.get(match[2], match[2])}; found {match[3]!r}."
    if match := re.match(r'Parser key "config": File does not exist: \'(.*)\'', message):
        return f"There is no configuration {match[1]} (--config)."
    return message if message.endswith(".") else f"{message}."


def _with_underscores(word: str, known: Collection[str]) -> str:
    """Write --dry-run as --dry_run."""
    name, equals, value = word.partition("=")
    renamed = f"--{name.removeprefix('--').replace('-', '_')}"
    return f"{renamed}{equals}{value}" if name.startswith("--") and renamed in known else word


def _unknown(name: str, options: Sequence[str]) -> str:
    if not name.startswith("--"):
        return f"{name!r} was not expected on the command line; options begin with --."
    known = {option.removeprefix("--"): option for option in options}
    # A setting within a class is named without the class.
    known |= {option.rpartition(".")[2]: option for option in options if "." in option}
    nearest = get_close_matches(name.removeprefix("--"), known, n=1)
    hint = f" Did you mean {known[nearest[0]]}?" if nearest else ""
    return f"There is no option {name}.{hint}"


def _within(key: str, sentence: str, value: str) -> str:
    """Name the option that a sentence is about by its place."""
    if sentence.startswith("There is no option"):
        return sentence.replace("--", f"--{key}.")
    if match := re.match(r"Expected a typing\.Literal\[([^]]*)\]", sentence):
        return _choice(key, match[1], value)
    if match := re.match(r"Expected a dot import path string: (.*)", sentence):
        return f"{key} must be the name or the import path of a class; found {match[1]!r}."
    return f"{key}.{sentence}" if " must be " in sentence else f"{key}: {sentence}"


def _choice(key: str, literal: str, value: str) -> str:
    choices = re.findall(r"'([^']*)'", literal)
    nearest = get_close_matches(value, choices, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    return f"{key} must be one of {', '.join(choices)}; found {value!r}.{hint}"


def _item(hint: Any) -> Any:
    """The type of a list's items, also of a list that may be None; None for any other type."""
    for candidate in (hint, *get_args(hint)):
        if get_origin(candidate) is list:
            return get_args(candidate)[0]
    return None
