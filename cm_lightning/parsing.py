"""Command-line parsers made from typed functions, with errors in one sentence and help without markup."""

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from cm_lightning.errors import UsageError, suggestion

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


class PlainHelpFormatter(DefaultHelpFormatter):  # type: ignore[misc]
    """Formatter of help texts from docstrings, which are shown without the markup of Sphinx."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return without_markup(super()._get_help_string(action))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return str(super()._fill_text(without_markup(text), width, indent))


class PlainHelpMixin:
    """Mixin for jsonargparse parsers: help texts have no markup.

    Args:
        *args: Positional arguments of the parser.
        prog: Name of the command in the usage line. Parsers for the help of a class are created without a name.
        formatter_class: Formatter of help texts.
        **kwargs: Further arguments of the parser.
    """

    def __init__(
        self,
        *args: Any,
        prog: str = "cm_lightning SUBCOMMAND",
        formatter_class: type[argparse.HelpFormatter] = PlainHelpFormatter,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, prog=prog, formatter_class=formatter_class, **kwargs)  # type: ignore[call-arg]


class ShortErrorMixin:
    """Mixin for jsonargparse parsers: an error is one plain sentence, without the usage of the command."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report an error of the command line.

        Args:
            message: Message of the parser.
            ex: Exception that caused the error.

        Raises:
            UsageError: Always.
        """
        raise UsageError(explain(message, sorted(set(option_names(self))))) from ex


class CommandParser(PlainHelpMixin, ShortErrorMixin, ArgumentParser):  # type: ignore[misc]
    """Parser of one of the project's own subcommands."""


def run_function(name: str, function: Callable[..., Any], argv: Sequence[str]) -> Any:
    """Call a typed function with the arguments of a command line.

    Args:
        name: Name of the subcommand.
        function: The function to call. Keyword-only parameters without a default become required options, other
            parameters without a default become positional arguments.
        argv: Command line after the subcommand.

    Returns:
        The return value of the function.

    Raises:
        UsageError: The command line does not fit the signature of the function.
    """
    parser = make_parser(name, function)
    known = set(option_names(parser))
    arguments = parser.parse_args([_with_underscores(argument, known) for argument in argv]).as_dict()
    return function(**{key: arguments[key] for key in inspect.signature(function).parameters})


def make_parser(name: str, function: Callable[..., Any], skip: Collection[str] = ()) -> CommandParser:
    """Create a parser from the signature and the docstring of a typed function.

    Args:
        name: Name of the subcommand.
        function: The function. Its docstring provides the help of the subcommand and of every option. A parameter that
            is a list accepts several values. Unless the function has a parameter ``config``, the option ``--config``
            reads the values of the other options from a file.
        skip: Parameters that do not become options.

    Returns:
        The parser, with ``--config`` and ``--print_config``.
    """
    docstring = docstring_parser.parse(function.__doc__ or "")
    descriptions = {item.arg_name: (item.description or "").replace("\n", " ") for item in docstring.params}
    parser = CommandParser(prog=f"cm_lightning {name}", description=docstring.description)
    hints = get_type_hints(function)
    if "config" not in hints:
        parser.add_argument("--config", action="config", help="YAML file with values of the options below.")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in skip:
            continue
        options: dict[str, Any] = {"help": descriptions[parameter.name], "type": hints[parameter.name]}
        item_type = _list_item_type(hints[parameter.name])
        if item_type is not None:
            options |= {"type": item_type, "nargs": "+"}
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


def without_markup(text: str) -> str:
    """Remove the markup of Sphinx from a text.

    Args:
        text: Text of a docstring.

    Returns:
        Text in which code has no backticks, and references are names.
    """
    text = re.sub(r":[a-z]+:`~(?:[^`]*\.)?([^`.]*)`", r"\1", text)
    text = re.sub(r":[a-z]+:`([^`]*)`", r"\1", text)
    return text.replace("``", "")


def check_exclusive(**options: Any) -> None:
    """Check that at most one of several options is set.

    Args:
        **options: Values of the options by name; None for an option that is not set.

    Raises:
        UsageError: More than one option is set.
    """
    names = [f"--{name}" for name, value in options.items() if value is not None]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} cannot be combined; expected only one of them.")


def option_names(parser: Any) -> Iterator[str]:
    """List the options of a parser and of its subcommands, with their leading dashes."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                yield from option_names(subparser)


def explain(message: str, options: Sequence[str]) -> str:
    """Rewrite an error message of jsonargparse as a plain sentence.

    Args:
        message: Message of jsonargparse.
        options: All valid options, with their leading dashes.

    Returns:
        A sentence that names the option, what was found and what was expected.
    """
    message = " ".join(message.split())
    # Settings that are derived from others.
    message = re.sub(r"^Call to compute_fn of link .*? failed: ", "", message)
    # An optional class, or a value that may have one of several types: report the error for the first of them.
    if match := re.match(r'Parser key "([^"]+)": .*Errors: - (.*?) - Expected a .*?Given value: (.*)', message):
        return _nested(match[1], match[2], match[3])
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_option(match[1].partition("=")[0], options)
    if match := re.search(r"(?:Option|accept option) '([^']+)'", message):
        return _unknown_option(f"--{match[1]}", options)
    if match := re.match(r'Parser key "([^"]+)": Expected a typing\.Literal\[(.*)\]\. Got value: (.*)', message):
        return _invalid_choice(match[1], match[2], match[3])
    if match := re.match(r'Parser key "([^"]+)"[^:]*: Expected a <class \'(\w+)\'>\. Got value: (.*)', message):
        return f"{match[1]} must be {KINDS.get(match[2], match[2])}; found {match[3]!r}."
    if match := re.match(r'Parser key "config": File does not exist: \'(.*)\'', message):
        return f"There is no configuration {match[1]} (--config)."
    return message if message.endswith(".") else f"{message}."


def innermost_reason(error: BaseException) -> str:
    """Return the message of the error that was the reason of other errors.

    Args:
        error: Error of a library, such as one of jsonargparse that lists all types that a value could have.

    Returns:
        A sentence.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines() if line.strip()]
    # jsonargparse lists an error for every type; that of the first one is about the value itself.
    noise = ("Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Given value")
    reasons = [line for line in lines if not line.startswith(noise)]
    reason = (reasons or lines or [type(error).__name__])[0]
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."


def _with_underscores(argument: str, known: Collection[str]) -> str:
    """Accept hyphens in the name of a known option: ``--dry-run`` becomes ``--dry_run``."""
    name, equals, value = argument.partition("=")
    renamed = f"--{name.removeprefix('--').replace('-', '_')}"
    return f"{renamed}{equals}{value}" if name.startswith("--") and renamed in known else argument


def _unknown_option(name: str, options: Sequence[str]) -> str:
    if not name.startswith("--"):
        return f"Unexpected argument {name!r}; options begin with --."
    known = {option.removeprefix("--"): option for option in options}
    # The message of a setting inside a class does not include the name of the class.
    known |= {option.rpartition(".")[2]: option for option in options if "." in option}
    return f"There is no option {name}.{suggestion(name.removeprefix('--'), known, known.__getitem__)}"


def _nested(key: str, sentence: str, value: str) -> str:
    """Add the full name of an option to a message about a setting inside it."""
    if sentence.startswith("There is no option"):
        return sentence.replace("--", f"--{key}.")
    if match := re.match(r"Expected a typing\.Literal\[([^]]*)\]", sentence):
        return _invalid_choice(key, match[1], value)
    if match := re.match(r"Expected a dot import path string: (.*)", sentence):
        return f"{key} must be the name or the import path of a class; found {match[1]!r}."
    return f"{key}.{sentence}" if " must be " in sentence else f"{key}: {sentence}"


def _invalid_choice(key: str, literal: str, value: str) -> str:
    choices = re.findall(r"'([^']*)'", literal)
    return f"{key} must be one of {', '.join(choices)}; found {value!r}.{suggestion(value, choices)}"


def _list_item_type(hint: Any) -> Any:
    """Return the item type of ``list[...]`` or ``list[...] | None``; None for any other type."""
    for candidate in (hint, *get_args(hint)):
        if get_origin(candidate) is list:
            return get_args(candidate)[0]
    return None
