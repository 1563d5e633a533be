"""Sweep files of Weights & Biases: their combinations of parameters, and the names of these combinations."""

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
# Environment variable with the file in which an agent of Weights & Biases stores its parameters.
AGENT_FILE = "WANDB_SWEEP_PARAM_PATH"
# Entry of the agent's file that is not a parameter.
VERSION = "wandb_version"

Combination = dict[str, Any]


def read_combinations(path: Path) -> list[Combination] | None:
    """Read all combinations of the parameter values in a sweep file.

    Args:
        path: Sweep file, or any other configuration.

    Returns:
        Values of all parameters except the fold, which cross-validation sets, for every combination. None if the file
        is not a sweep file, that is, has no ``parameters``.

    Raises:
        InputError: ``parameters`` is empty or not a mapping, or a parameter has neither a list of values nor a single
            value but, for example, a distribution.
    """
    try:
        content = yaml.safe_load(path.read_text()) if path.is_file() else None
    except yaml.YAMLError:
        return None  # fit reports the error
    if not isinstance(content, dict) or "parameters" not in content:
        return None
    parameters = content["parameters"]
    if not isinstance(parameters, dict) or not parameters:
        raise InputError(f"parameters in {path} must map names to their values, found {parameters!r}.")
    values = {name: _values(path, name, parameters[name]) for name in sorted(parameters) if name != FOLD}
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def combination_name(combination: Mapping[str, Any]) -> str:
    """Return the suffix of an experiment's name for a combination of parameters.

    Args:
        combination: Values of the parameters. The fold is ignored, so that the folds of a combination belong to one
            experiment.

    Returns:
        The last part of the name of each parameter with its value, such as ``_alpha0.2_beta100``, in alphabetical order
        of the parameters. A seed is at the end, as in cross-validation, so that reports recognise it.
    """
    name = "".join(
        f"_{parameter.rpartition('.')[2]}{_label(combination[parameter])}"
        for parameter in sorted(combination)
        if parameter not in (FOLD, SEED)
    )
    return seeded_name(name, combination[SEED]) if SEED in combination else name


def combination_arguments(combination: Mapping[str, Any]) -> list[str]:
    """Convert a combination of parameters to command-line arguments.

    Args:
        combination: Values of the parameters.

    Returns:
        Arguments of ``fit``.
    """
    return [
        f"--{parameter}={value if isinstance(value, str) else json.dumps(value)}"
        for parameter, value in combination.items()
    ]


def sweep_experiment(experiment: str) -> str:
    """Add the parameters of a sweep agent to the name of an experiment.

    All runs of an agent have the same experiment on their command line, and would use the same folder otherwise.

    Args:
        experiment: Experiment on the command line.

    Returns:
        Experiment with the same suffix as for ``crossval --grid``. It does not change outside of sweeps, or if it
        already contains the suffix.

    Raises:
        MissingInputError: The file of the agent does not exist.
        InputError: The file of the agent contains no parameters.
    """
    file = os.environ.get(AGENT_FILE)
    if not file:
        return experiment
    path = Path(file)
    if not path.is_file():
        raise MissingInputError(f"{path} ({AGENT_FILE}) does not exist; expected the parameters of the sweep agent.")
    content = yaml.safe_load(path.read_text())
    items = {key: value for key, value in content.items() if key != VERSION} if isinstance(content, dict) else None
    if items is None or not all(isinstance(item, dict) and "value" in item for item in items.values()):
        raise InputError(
            f"{path} ({AGENT_FILE}) must contain the parameters of the sweep agent with their values; found "
            f"{content!r}."
        )
    suffix = combination_name({parameter: item["value"] for parameter, item in items.items()})
    # The configuration that such a run has stored already contains the suffix.
    if re.search(rf"{re.escape(suffix)}(_|$)", experiment):
        return experiment
    return experiment + suffix


def _values(path: Path, name: str, parameter: Any) -> list[Any]:
    """Return the values of a parameter of a sweep, or raise an error if it has none."""
    match parameter:
        case {"values": [_, *_] as values, **others} if not others:
            return values
        case {"value": value, **others} if not others:
            return [value]
    raise InputError(
        f"The parameter {name} in {path} must contain only the key 'values' (a list that is not empty) or only the key "
        f"'value', because it is used as a grid; found {parameter!r}."
    )


def _label(value: Any) -> str:
    """Convert a value to text for a folder name; 100.0 becomes 100, as the server may also store it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
