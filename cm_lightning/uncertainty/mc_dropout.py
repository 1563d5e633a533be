"""Monte Carlo dropout (Gal and Ghahramani 2016): dropout stays on at test time, and its samples are averaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from cm_lightning.models.dropout import dropout_layers, refuse_without_dropout


@contextmanager
def active_dropout(network: nn.Module) -> Iterator[None]:
    """Switch on the dropout of a network and nothing else: no batch norm moves.

    Args:
        network: A network in evaluation mode.

    Yields:
        Nothing.

    Raises:
        InputError: The network has no dropout above 0.
    """
    refuse_without_dropout(network)
    before = [(layer, layer.training) for layer in dropout_layers(network)]
    for layer, _ in before:
        layer.train()
    try:
        yield
    finally:
        for layer, mode in before:
            layer.train(mode)


def mc_dropout_probabilities(network: nn.Module, predict: Callable[[], Tensor], samples: int) -> Tensor:
    """Average the class probabilities of several passes with dropout.

    Args:
        network: The network whose dropout varies.
        predict: Runs it; gives logits ``(B, C, ...)``.
        samples: Number of passes.

    Returns:
        Mean probabilities, ``(B, C, ...)``, float32.
    """
    with active_dropout(network):
        total = predict().float().softmax(dim=1)
        for _ in range(samples - 1):
            total += predict().float().softmax(dim=1)
    return total / samples
