"""Weights of one network for another with other input channels or classes."""

from collections.abc import Mapping
from pathlib import Path

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
        InputError: Nothing in it fits.
    """
    if not path.is_file():
        raise MissingInputError(f"There is no checkpoint {path} (model.init_from); expected one that a fit wrote.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    stored: Mapping[str, Tensor] = content.get("state_dict", content)
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
        elif _differs_in_input_channels_only(before, value):
            channels = min(before.shape[1], value.shape[1])
            widened = torch.zeros_like(value)
            widened[:, :channels] = before[:, :channels]
            new_state[name] = widened
            notes.append(
                f"{name}: {channels} of its {value.shape[1]} input channels loaded, the others start at zero"
                if channels < value.shape[1]
                else f"{name}: the first {channels} of the checkpoint's {before.shape[1]} input channels loaded"
            )
        else:
            notes.append(f"{name}: has shape {list(value.shape)}, in the checkpoint {list(before.shape)}")
    module.load_state_dict(new_state, strict=False)
    return notes + [f"{name}: only in the checkpoint" for name in stored if name not in own]


def _differs_in_input_channels_only(before: Tensor, now: Tensor) -> bool:
    """Whether two weights are of one layer that reads 1 or 2 input channels (out, in, ...).

    A transposed convolution at the output, (in, out, ...), has as many there as classes, which are 2 or more.
    """
    if before.ndim != now.ndim or before.ndim < 3:
        return False
    others_agree = before.shape[0] == now.shape[0] and before.shape[2:] == now.shape[2:]
    return others_agree and {before.shape[1], now.shape[1]} == {1, 2}
