"""Sweep files of Weights & Biases as grids: which combinations they hold, and how each is called."""

import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.runs.layout import seeded_name

FOLD = "data.fold"
SEED = "seed_everything"
# Where an agent of Weights & Biases says which combination it runs.
AGENT_FILE = "WANDB_SWEEP_PARAM_PATH"
# What the agent's file holds beside parameters.
VERSION = "wandb_version"

Combination = dict[str, Any]


def read_combinations(path: Path) -> list[Combination] | None:
    """Expand a sweep file to the product of its parameters' values.

    Args:
        path: A sweep file, or any configuration.

    Returns:
        Value of every parameter, for every combination, without the fold: folds are cross-validation's own. None
        where the file is no sweep, as it has no ``parameters``.

    Raises:
        InputError: A parameter has no values, but a distribution or parameters of its own.
    """
    try:
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
    except yaml.YAMLError:
        return None  # fit says where the file is wrong
    if not isinstance(content, dict) or "parameters" not in content:
        return None
    parameters = content["parameters"]
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(f"parameters in {path} must map names to their values, found {parameters!r}.")
    values = {name: _values(path, name, parameters[name]) for name in sorted(parameters) if name != FOLD}
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def combination_name(combination: Mapping[str, Any]) -> str:
    """Say what a combination is, for the end of an experiment's name.

    Args:
        combination: Value of every parameter. The fold is left out, so that the folds of a combination are one
            experiment.

    Returns:
        The last part of every parameter's name with its value, ``_alpha0.2_beta100``, in an order that does not depend
        on the file's; a seed as cross-validation names it, so that reports take seeds as one model.
    """
    name = "".join(
        f"_{parameter.rpartition('.')[2]}{_label(combination[parameter])}"
        for parameter in sorted(combination)
        if parameter not in (FOLD, SEED)
    )
    return seeded_name(name, combination[SEED]) if SEED in combination else name


def combination_arguments(combination: Mapping[str, Any]) -> list[str]:
    """Write a combination as words of a command line.

    Args:
        combination: Value of every parameter.

    Returns:
        Words of ``fit``.
    """
    return [
        f"--{parameter}={value if isinstance(value, str) else json.dumps(value)}"
        for parameter, value in combination.items()
    ]


def sweep_experiment(experiment: str) -> str:
    """Name the experiment that an agent's run belongs to.

    All runs of an agent are called with the same experiment, and would refuse one another's folders.

    Args:
        experiment: As the command line names it.

    Returns:
        The name with the agent's combination, as ``crossval --grid`` would end it; unchanged outside of a sweep, and
        where it names the combination already.

    Raises:
        InputError: The file that the agent names is not there, or does not hold parameters.
    """
    file = os.environ.get(AGENT_FILE)
    if not file:
        return experiment
    path = Path(file)
    if not path.is_file():
        raise MissingInputError(f"{AGENT_FILE} names {path}, which is not there; expected the agent's parameters.")
    content = yaml.safe_load(path.read_text())
    given = {key: value for key, value in content.items() if key != VERSION} if isinstance(content, dict) else None
    if given is None or not all(isinstance(item, dict) and "value" in item for item in given.values()):
        raise InputError(
            f"{path} ({AGENT_FILE}) must hold the agent's parameters, each with a value; found {content!r}."
        )
    ending = combination_name({parameter: item["value"] for parameter, item in given.items()})
    # The name may come from the stored configuration of such a run.
    if re.search(rf"{re.escape(ending)}(_|$)", experiment):
        return experiment
    return experiment + ending


def _values(path: Path, name: str, parameter: Any) -> list[Any]:
    """Values of a parameter of a sweep."""
    match parameter:
        case {"values": [_, *_] as values, **rest} if not rest:
            return values
        case {"value": value, **rest} if not rest:
            return [value]
    raise InputError(
        f"The parameter {name} in {path} must have values (a list) or one value, as a grid takes all of them; found "
        f"{parameter!r}."
    )


def _label(value: Any) -> str:
    """Write a value so that a folder can carry it; 100.0 as 100, which the server may make of it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
