"""Monte Carlo dropout (Gal and Ghahramani 2016): dropout stays on at test time, and its samples are summed up."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from cm_lightning.errors import InputError
from cm_lightning.models.dropout import check_dropout, dropout_layers

Inference = Literal["whole", "windows"]


@dataclass(frozen=True)
class MCDropout:
    """How a network is sampled.

    Args:
        samples: Passes with dropout.
        batch_size: Samples in one pass; takes memory, and changes no result.
        inference: ``whole`` images at once, or blended sliding ``windows`` of the training's patches, for images whose
            activations do not fit into memory and for UNETR. Windows see less, and each has masks of its own.
        segmentations: How many sampled segmentations are kept, the most plausible first.
        seed: Of the masks. They are drawn for every case and sample on their own.

    Raises:
        InputError: Fewer than two samples, or more segmentations than samples.
    """

    samples: int = 100
    batch_size: int = 1
    inference: Inference = "whole"
    segmentations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense together."""
        if self.samples < 2 or self.batch_size < 1 or not 0 <= self.segmentations <= self.samples:
            raise InputError(
                "mc_dropout takes samples of at least 2, a batch_size of at least 1, segmentations from 0 to samples; "
                f"found {self.samples}, {self.batch_size} and {self.segmentations}."
            )


@dataclass(frozen=True)
class SampledPrediction:
    """What the samples of one image say together. Entropies are in nats.

    Attributes:
        mean: Mean class probabilities, ``(C, ...)``.
        expected_entropy: Mean over samples of the entropy of the class probabilities, ``(...)``: the doubt that every
            sample has by itself.
        variance: Variance over samples of every class's probability, ``(C, ...)``.
        votes: Number of samples whose most probable class this is, ``(C, ...)``; where windows overlap, a blend.
        kept: Class probabilities of the kept samples in falling order of ``plausibility``, ``(k, C, ...)``.
        plausibility: Of every kept sample, the mean log probability that the mean of all samples gives its classes.
    """

    mean: Tensor
    expected_entropy: Tensor
    variance: Tensor
    votes: Tensor
    kept: Tensor
    plausibility: Tensor

    @property
    def entropy(self) -> Tensor:
        """Entropy of the mean probabilities (predictive entropy), ``(...)``."""
        return entropy(self.mean, dim=0)

    @property
    def mutual_information(self) -> Tensor:
        """What the samples disagree on: predictive less expected entropy, ``(...)``."""
        return (self.entropy - self.expected_entropy).clamp_min(0)


def entropy(probabilities: Tensor, dim: int = 1) -> Tensor:
    """Give the Shannon entropy in nats along the dimension of the classes."""
    return torch.special.entr(probabilities).sum(dim)


@contextmanager
def seeded_dropout(network: nn.Module, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Let a network in evaluation mode drop, every item of a batch by masks of its own.

    Nothing else is switched: no layer changes its mode, no batch norm moves.

    Args:
        network: A network in evaluation mode.
        generators: Source of the masks of every item of its inputs' batch.

    Yields:
        Nothing.

    Raises:
        InputError: The network has no dropout above 0, or a kind of dropout that is not known.
    """
    check_dropout(network)

    def drop(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shape = output.shape[:2] + (1,) * (output.ndim - 2) if _whole_channels(layer) else output.shape
        return output * _scaled_masks(output.new_empty(shape), layer.p, generators)

    hooks = [layer.register_forward_hook(drop) for layer in dropout_layers(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sample_dropout(
    network: nn.Module,
    logits: Callable[[Tensor], Tensor],
    inputs: Tensor,
    name: str,
    settings: MCDropout,
    window: SlidingWindowInferer | None = None,
    each: Callable[[Tensor], None] | None = None,
) -> SampledPrediction:
    """Run a network on one image many times with dropout, keeping sums alone.

    Memory does not depend on the number of samples. With windows, what is blended is every sample's probabilities,
    their squares and their entropies, window by window: blending the logits first would average the windows' masks out,
    and the variance would show how many windows overlap.

    Args:
        network: The network whose dropout varies, in evaluation mode.
        logits: Runs it on inputs ``(B, channels, ...)``; gives the classes' logits ``(B, C, ...)``.
        inputs: One image's channels, ``(1, channels, ...)``.
        name: Of the image, from which its masks are seeded.
        settings: How it is sampled.
        window: Cuts and blends windows; None for the whole image at once.
        each: Is shown the class probabilities of every sample, ``(C, ...)``, one after the other.

    Returns:
        The samples, summed up, on the grid of the inputs.
    """
    total: Tensor | None = None
    kept: list[Tensor] = []
    for start in range(0, settings.samples, settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, settings.samples))
        wanted = max(0, min(settings.segmentations - start, len(numbers)))
        keeping = wanted if each is None else len(numbers)
        generators = [_generator(inputs.device, settings.seed, name, number) for number in numbers]

        def moments(part: Tensor, size: int = len(numbers), keeping: int = keeping) -> Tensor:
            return _moments(logits(part.expand(size, *part.shape[1:])), keeping)

        with seeded_dropout(network, generators):
            found = moments(inputs) if window is None else window(inputs, moments)
        classes = found.shape[1] // (3 + keeping)
        sums = found[0, : 3 * classes + 1]
        if keeping:
            probabilities = found[0, 3 * classes + 1 :].unflatten(0, (keeping, classes))
            kept += list(probabilities[:wanted].clone())
            if each is not None:
                for sample in probabilities:
                    each(sample)
        total = sums.clone() if total is None else total.add_(sums)
    assert total is not None
    return _summarise(total, kept, settings.samples)


def _moments(logits: Tensor, keeping: int) -> Tensor:
    """Sum probabilities, their squares, votes and entropies over samples.

    Args:
        logits: ``(B, C, ...)``.
        keeping: How many of the first samples' probabilities follow.

    Returns:
        ``(1, C + C + C + 1 + keeping * C, ...)``.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    classes = probabilities.shape[1]
    sums = probabilities.new_empty(((3 + keeping) * classes + 1, *probabilities.shape[2:]))
    torch.sum(probabilities, dim=0, out=sums[:classes])
    torch.sum(probabilities.square(), dim=0, out=sums[classes : 2 * classes])
    winners = probabilities.max(dim=1).indices  # on a processor ten times as fast as argmax
    for index in range(classes):
        sums[2 * classes + index] = (winners == index).sum(dim=0)
    sums[3 * classes + 1 :] = probabilities[:keeping].flatten(0, 1)
    torch.sum(log_probabilities.mul_(probabilities), dim=(0, 1), out=sums[3 * classes]).neg_()
    return sums[None]


def _summarise(total: Tensor, kept: Sequence[Tensor], samples: int) -> SampledPrediction:
    classes = total.shape[0] // 3
    mean, squares = total[:classes] / samples, total[classes : 2 * classes] / samples
    held = torch.stack(list(kept)) if kept else total.new_empty((0, *mean.shape))
    certainty = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    chosen = held.argmax(dim=1)
    plausibility = torch.stack([certainty.gather(0, one[None]).mean() for one in chosen]) if kept else mean.new_empty(0)
    order = plausibility.argsort(descending=True)
    return SampledPrediction(
        mean=mean,
        expected_entropy=total[3 * classes] / samples,
        variance=(squares - mean.square()).clamp_min_(0),
        votes=total[2 * classes : 3 * classes],
        kept=held[order],
        plausibility=plausibility[order],
    )


def _scaled_masks(masks: Tensor, rate: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Fill every item of a batch with zeros, ``rate`` of them, and what keeps the mean among them.

    Four masks are read off each random 64-bit number, so that the rate is a multiple of 1 / 65536: torch's Bernoulli
    numbers, drawn one at a time, take a fourth of a small network's time on a processor.
    """
    dropped = round(rate * 65536)
    if dropped == 65536:
        return masks.zero_()
    for mask, generator in zip(masks, generators, strict=True):
        numbers = torch.empty(-(-mask.numel() // 4), dtype=torch.int64, device=mask.device)
        draws = numbers.random_(-(2**63), None, generator=generator).view(torch.int16)
        torch.ge(draws[: mask.numel()].view(mask.shape), dropped - 32768, out=mask)
    return masks.mul_(65536 / (65536 - dropped))


def _generator(device: torch.device, seed: int, name: str, sample: int) -> torch.Generator:
    """Seed the masks of one sample of one image, whatever else is sampled beside it."""
    digest = hashlib.blake2b(f"{seed} {sample} {name}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def _whole_channels(layer: nn.Module) -> bool:
    """Whether a layer drops whole channels, or voxels on their own."""
    match layer:
        case nn.Dropout1d() | nn.Dropout2d() | nn.Dropout3d():
            return True
        case nn.Dropout():
            return False
        case _:
            raise InputError(
                f"MC dropout does not know {type(layer).__name__}; expected Dropout, Dropout1d, Dropout2d or Dropout3d."
            )
