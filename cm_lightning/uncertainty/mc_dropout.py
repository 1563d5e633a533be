"""Monte Carlo dropout: predictive uncertainty from several predictions with active dropout.

References:
    Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in deep learning", ICML
    2016.
"""

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
    """Settings of Monte Carlo dropout.

    Args:
        samples: Number of predictions with active dropout per image, at least 2.
        batch_size: Number of samples that are computed at once. It affects memory and speed, but not the results.
        inference: ``whole`` predicts the entire image at once. ``windows`` blends sliding windows of the size of the
            training patches, for UNETR and for images whose activations do not fit into memory; windows have less
            context, and every window has its own dropout masks.
        segmentations: Number of sampled segmentations that are kept; they are written in order of plausibility.
        seed: Seed of the dropout masks. Every case and sample has its own masks.

    Raises:
        InputError: A number is out of its range.
    """

    samples: int = 100
    batch_size: int = 1
    inference: Inference = "whole"
    segmentations: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.samples < 2 or self.batch_size < 1 or not 0 <= self.segmentations <= self.samples:
            raise InputError(
                "mc_dropout needs samples of at least 2, a batch_size of at least 1 and segmentations from 0 to "
                f"samples; found {self.samples}, {self.batch_size} and {self.segmentations}."
            )


@dataclass(frozen=True)
class SampledPrediction:
    """Statistics of the samples of one image, with entropies in nats.

    Attributes:
        mean: Mean class probabilities, ``(C, ...)``.
        expected_entropy: Mean over the samples of the entropy of their class probabilities, ``(...)`` (aleatoric
            uncertainty).
        variance: Variance of the class probabilities over the samples, ``(C, ...)``.
        votes: Number of samples in which the class is the most probable one, ``(C, ...)``. In overlaps of windows, it
            is a weighted mean over the windows.
        kept: Class probabilities of the kept samples, ``(k, C, ...)``.
        plausibility: Plausibility of the kept samples, ``(k,)``: mean over pixels of the logarithm of the mean
            probability of the sample's class.
    """

    mean: Tensor
    expected_entropy: Tensor
    variance: Tensor
    votes: Tensor
    kept: Tensor
    plausibility: Tensor

    @property
    def entropy(self) -> Tensor:
        """Predictive entropy in nats: entropy of the mean probabilities, ``(...)``."""
        return entropy(self.mean, dim=0)

    @property
    def mutual_information(self) -> Tensor:
        """Mutual information in nats: predictive minus expected entropy, ``(...)`` (epistemic uncertainty)."""
        return (self.entropy - self.expected_entropy).clamp_min(0)


def entropy(probabilities: Tensor, dim: int = 1) -> Tensor:
    """Compute the Shannon entropy of class probabilities.

    Args:
        probabilities: Class probabilities, ``(B, C, ...)``.
        dim: Dimension of the classes.

    Returns:
        Entropy in nats, without the dimension of the classes.
    """
    return torch.special.entr(probabilities).sum(dim)


@contextmanager
def seeded_dropout(network: nn.Module, generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Activate the dropout of a network in evaluation mode, with separate masks for every item of a batch.

    All layers stay in evaluation mode, so that the statistics of batch normalisation do not change.

    Args:
        network: Network in evaluation mode.
        generators: Random generators of the masks, one for each item of the batch.

    Yields:
        None.

    Raises:
        InputError: The network has no dropout layer with a rate above 0, or has an unsupported kind of dropout layer.
    """
    check_dropout(network)

    def drop(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shape = output.shape[:2] + (1,) * (output.ndim - 2) if _drops_channels(layer) else output.shape
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
    """Predict one image several times with active dropout.

    Only sums over the samples are stored, so memory does not depend on their number. With windows, the
    probabilities, squared probabilities and entropies of the samples are blended. Blending the logits instead would
    average over the masks of the windows, and the variance would depend on the number of overlapping windows.

    Args:
        network: Network with dropout layers, in evaluation mode.
        logits: Function that computes logits, ``(B, C, ...)``, from inputs, ``(B, channels, ...)``, with the network.
        inputs: Input of the network, ``(1, channels, ...)``.
        name: Name of the image. Together with the seed, it determines the dropout masks.
        settings: Settings of the sampling.
        window: Sliding-window inferer; None predicts the entire image at once.
        each: Function that is called with the class probabilities of every sample, ``(C, ...)``, in order.

    Returns:
        Statistics of the samples, on the grid of the inputs.

    Raises:
        InputError: The network has no dropout layer with a rate above 0, or has an unsupported kind of dropout layer.
    """
    total: Tensor | None = None
    kept: list[Tensor] = []
    for start in range(0, settings.samples, settings.batch_size):
        numbers = range(start, min(start + settings.batch_size, settings.samples))
        n_kept = max(0, min(settings.segmentations - start, len(numbers)))
        n_returned = n_kept if each is None else len(numbers)
        generators = [_generator(inputs.device, settings.seed, name, number) for number in numbers]

        def moments(part: Tensor, size: int = len(numbers), n_returned: int = n_returned) -> Tensor:
            return _moments(logits(part.expand(size, *part.shape[1:])), n_returned)

        with seeded_dropout(network, generators):
            channels = moments(inputs) if window is None else window(inputs, moments)
        classes = channels.shape[1] // (3 + n_returned)
        sums = channels[0, : 3 * classes + 1]
        if n_returned:
            probabilities = channels[0, 3 * classes + 1 :].unflatten(0, (n_returned, classes))
            kept += list(probabilities[:n_kept].clone())
            if each is not None:
                for sample in probabilities:
                    each(sample)
        total = sums.clone() if total is None else total.add_(sums)
    assert total is not None
    return _summarise(total, kept, settings.samples)


def _moments(logits: Tensor, n_returned: int) -> Tensor:
    """Sum probabilities, squared probabilities, votes and entropies over samples.

    Args:
        logits: Logits of the samples, ``(B, C, ...)``.
        n_returned: Number of samples whose probabilities are returned as well.

    Returns:
        These sums, followed by the probabilities of the first samples, ``(1, C + C + C + 1 + n_returned * C, ...)``.
    """
    log_probabilities = logits.float().log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    classes = probabilities.shape[1]
    sums = probabilities.new_empty(((3 + n_returned) * classes + 1, *probabilities.shape[2:]))
    torch.sum(probabilities, dim=0, out=sums[:classes])
    torch.sum(probabilities.square(), dim=0, out=sums[classes : 2 * classes])
    # On a CPU, this is ten times as fast as argmax.
    segmentations = probabilities.max(dim=1).indices
    for index in range(classes):
        sums[2 * classes + index] = (segmentations == index).sum(dim=0)
    sums[3 * classes + 1 :] = probabilities[:n_returned].flatten(0, 1)
    torch.sum(log_probabilities.mul_(probabilities), dim=(0, 1), out=sums[3 * classes]).neg_()
    return sums[None]


def _summarise(total: Tensor, kept: Sequence[Tensor], samples: int) -> SampledPrediction:
    classes = total.shape[0] // 3
    mean, squares = total[:classes] / samples, total[classes : 2 * classes] / samples
    kept_probabilities = torch.stack(list(kept)) if kept else total.new_empty((0, *mean.shape))
    log_mean = mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
    plausibilities = [log_mean.gather(0, sample.argmax(dim=0)[None]).mean() for sample in kept_probabilities]
    plausibility = torch.stack(plausibilities) if kept else mean.new_empty(0)
    return SampledPrediction(
        mean=mean,
        expected_entropy=total[3 * classes] / samples,
        variance=(squares - mean.square()).clamp_min_(0),
        votes=total[2 * classes : 3 * classes],
        kept=kept_probabilities,
        plausibility=plausibility,
    )


def _scaled_masks(masks: Tensor, rate: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Fill every item of a batch with a dropout mask: 0 with probability ``rate``, otherwise ``1 / (1 - rate)``.

    Each random 64-bit number gives four values of the mask, so the rate is rounded to a multiple of 1 / 65536.
    PyTorch's Bernoulli numbers, which are drawn one at a time, take one fourth of a small network's time on a CPU.
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
    """Return a generator of the masks of one sample of one image, independent of the batch size and of other images."""
    digest = hashlib.blake2b(f"{seed} {sample} {name}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def _drops_channels(layer: nn.Module) -> bool:
    """Return whether a layer drops entire channels rather than single voxels."""
    match layer:
        case nn.Dropout1d() | nn.Dropout2d() | nn.Dropout3d():
            return True
        case nn.Dropout():
            return False
        case _:
            raise InputError(
                f"MC dropout does not support {type(layer).__name__}; "
                "expected Dropout, Dropout1d, Dropout2d or Dropout3d."
            )
