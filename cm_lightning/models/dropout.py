"""Dropout layers of a network."""

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from cm_lightning.errors import InputError


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """List the dropout layers with a rate above 0.

    Args:
        network: Any network.

    Returns:
        Dropout layers in the order of ``network.modules()``.
    """
    return [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


def check_dropout(network: nn.Module) -> None:
    """Check that a network has active dropout layers, which MC dropout needs.

    Args:
        network: Any network.

    Raises:
        InputError: The network has no dropout layer with a rate above 0.
    """
    if not dropout_layers(network):
        raise InputError(
            "MC dropout needs a network with dropout, but all dropout rates of this network are 0, so all samples "
            "would be equal. Set a rate, for example model.network_options {dropout: 0.2} (UNETR: dropout_rate), or "
            "switch MC dropout off."
        )
