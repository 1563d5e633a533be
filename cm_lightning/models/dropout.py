"""Dropout layers of a network."""

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from cm_lightning.errors import InputError


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """List the layers that drop anything at all.

    Args:
        network: Any network.

    Returns:
        Its dropout layers of a rate above 0.
    """
    return [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


def check_dropout(network: nn.Module) -> None:
    """Check that MC dropout has something to vary.

    Args:
        network: Any network.

    Raises:
        InputError: All dropout is at zero.
    """
    if not dropout_layers(network):
        raise InputError(
            "MC dropout varies a network by its dropout, and this one has none above 0: all samples would be equal. "
            "Set a rate, for example model.network_options {dropout: 0.2} (UNETR: dropout_rate), or leave MC dropout."
        )
