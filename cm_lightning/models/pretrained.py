"""Pretrained weights for networks with other numbers of input channels or classes."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from cm_lightning.errors import InputError
from cm_lightning.models.checkpoints import read_checkpoint


def load_pretrained(module: nn.Module, path: Path) -> list[str]:
    """Load those weights of a checkpoint that match a module.

    Weights with equal names and shapes are copied. If the number of input channels differs, the weights of the common
    channels are copied, and those of additional channels are set to 0, so that the predictions do not change. All other
    weights, such as those of an output layer for other classes, keep their random initialisation.

    Args:
        module: The module, which is changed in place.
        path: Lightning checkpoint, or a file that contains a state dict.

    Returns:
        One line ``name: reason`` for every tensor that was not copied unchanged.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file is not a checkpoint, or contains no matching weights.
    """
    content = read_checkpoint(path, "model.init_from")
    stored: Mapping[str, Tensor] = content.get("state_dict", content)
    current = module.state_dict()
    if not current.keys() & stored.keys():
        raise InputError(
            f"{path} (model.init_from) contains no weights of this network, such as {next(iter(current))!r}; found "
            f"{next(iter(stored), None)!r}. Expected a checkpoint of the same architecture."
        )
    new_state, notes = {}, []
    for name, value in current.items():
        stored_value = stored.get(name)
        if stored_value is None:
            notes.append(f"{name}: not in the checkpoint")
        elif stored_value.shape == value.shape:
            new_state[name] = stored_value
        elif images := _number_of_input_images(name, stored_value, value):
            old, new = stored_value.shape[1] // images, value.shape[1] // images
            shared = min(old, new)
            outputs, kernel = value.shape[0], value.shape[2:]
            adapted = value.new_zeros((outputs, images, new, *kernel))
            adapted[:, :, :shared] = stored_value.reshape((outputs, images, old, *kernel))[:, :, :shared]
            new_state[name] = adapted.reshape(value.shape)
            notes.append(
                f"{name}: {images * shared} of {value.shape[1]} input channels loaded, the others set to 0"
                if old < new
                else f"{name}: {images * shared} of the {stored_value.shape[1]} input channels of the checkpoint loaded"
            )
        else:
            notes.append(f"{name}: shape {list(value.shape)}, but {list(stored_value.shape)} in the checkpoint")
    module.load_state_dict(new_state, strict=False)
    return notes + [f"{name}: only in the checkpoint" for name in stored if name not in current]


def _number_of_input_images(name: str, stored: Tensor, current: Tensor) -> int:
    """Return the number of input images of a layer if its weights differ only in 1 or 2 channels per image, else 0.

    The second axis of a transposed convolution at the output is not mistaken for input channels, because its length is
    the number of classes, which is at least 2.
    """
    if stored.ndim != current.ndim or stored.ndim < 3:
        return 0
    if stored.shape[0] != current.shape[0] or stored.shape[2:] != current.shape[2:]:
        return 0
    match {stored.shape[1], current.shape[1]}:
        case channels if channels == {1, 2}:
            return 1
        case channels if channels == {2, 4} and name.startswith("registration."):
            return 2
        case _:
            return 0
