"""Weights of one network for another with other input channels or classes."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from cm_lightning.errors import InputError, MissingInputError


def load_pretrained(module: nn.Module, path: Path) -> list[str]:
    """Load the weights of a checkpoint as far as they fit.

    Weights of equal shape are copied. A layer that reads the input keeps the channels that both networks have; an extra
    input channel starts at zero, so that what the network predicts is what it predicted before. Everything else (an
    output layer with other classes) keeps its random start.

    Args:
        module: The module; changed in place.
        path: A Lightning checkpoint, or a file with a state dict.

    Returns:
        One line for every tensor that was not loaded as it is: ``name: why``. Empty if all were.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no checkpoint, or nothing in it fits.
    """
    if not path.is_file():
        raise MissingInputError(f"There is no checkpoint {path} (model.init_from); expected one that a fit wrote.")
    stored = _read(path)
    own = module.state_dict()
    if not own.keys() & stored.keys():
        raise InputError(
            f"{path} (model.init_from) holds no weights by the names of this network, such as {next(iter(own))!r}; "
            f"found {next(iter(stored), None)!r}. Expected a checkpoint of the same architecture."
        )
    new_state, notes = {}, []
    for name, value in own.items():
        before = stored.get(name)
        if before is None:
            notes.append(f"{name}: not in the checkpoint")
        elif before.shape == value.shape:
            new_state[name] = before
        elif images := _images_read(name, before, value):
            old, new = before.shape[1] // images, value.shape[1] // images
            shared = min(old, new)
            outputs, kernel = value.shape[0], value.shape[2:]
            widened = value.new_zeros((outputs, images, new, *kernel))
            widened[:, :, :shared] = before.reshape((outputs, images, old, *kernel))[:, :, :shared]
            new_state[name] = widened.reshape(value.shape)
            notes.append(
                f"{name}: {images * shared} of its {value.shape[1]} input channels loaded, the others start at zero"
                if old < new
                else f"{name}: {images * shared} of the checkpoint's {before.shape[1]} input channels loaded"
            )
        else:
            notes.append(f"{name}: has shape {list(value.shape)}, in the checkpoint {list(before.shape)}")
    module.load_state_dict(new_state, strict=False)
    return notes + [f"{name}: only in the checkpoint" for name in stored if name not in own]


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read the weights of a checkpoint, or of a file that holds nothing else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} (model.init_from) is no checkpoint: {error}.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} (model.init_from) holds a {type(content).__name__}; expected a checkpoint's weights.")
    weights: Mapping[str, Tensor] = content.get("state_dict", content)
    return weights


def _images_read(name: str, before: Tensor, now: Tensor) -> int:
    """How many images a layer reads, where two weights are of one layer for 1 and 2 channels an image; else 0.

    A transposed convolution at the output, (in, out, ...), has as many there as classes, which are 2 or more.
    """
    if before.ndim != now.ndim or before.ndim < 3:
        return 0
    if before.shape[0] != now.shape[0] or before.shape[2:] != now.shape[2:]:
        return 0
    match {before.shape[1], now.shape[1]}:
        case channels if channels == {1, 2}:
            return 1
        case channels if channels == {2, 4} and name.startswith("registration."):
            return 2
        case _:
            return 0
