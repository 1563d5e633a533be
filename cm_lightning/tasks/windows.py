"""Sliding windows over volumes, whose results are returned a few frames at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from torch import Tensor

# Maps on the network's grid by their name, ``(channels, depth, lateral[, frames])`` each.
Maps = dict[str, Tensor]


def slide_along_elevation(
    compute: Callable[[range], Maps], size: Sequence[int], window: SlidingWindowInferer
) -> Iterator[Maps]:
    """Blend the results of overlapping slabs of a volume, which are as thick as a window.

    The result is that of MONAI's sliding window over the whole volume, in which every window is weighted by a Gaussian.
    Here, only the frames of one slab are in memory.

    Args:
        compute: Function from a range of frames to maps of these frames, ``(channels, depth, lateral, frames)`` each.
            It is called once for every slab, in the order of the frames. Within a slab, it blends windows itself.
        size: Size of the volume, ``(depth, lateral, elevation)``.
        window: Size, overlap and weighting of the windows.

    Yields:
        Maps of the next frames, float32.
    """
    spans = _spans(size[2], window.roi_size[2], _overlap(window)[2])
    if len(spans) == 1:
        yield compute(spans[0])
        return
    weights = _slab_weights(size, window)
    sums: Maps = {}
    norm = torch.zeros_like(weights)
    for number, span in enumerate(spans):
        results = compute(span)
        for name in list(results):
            values = results.pop(name)
            weights, norm = weights.to(values.device), norm.to(values.device)
            if name not in sums:
                sums[name] = torch.zeros(values.shape, device=values.device)
            # One channel after the other, since a slab of all channels takes half a gigabyte.
            for total, value in zip(sums[name], values, strict=True):
                total.addcmul_(value.float(), weights)
            del values
        norm += weights
        # Frames before the next slab are complete.
        step = (spans[number + 1].start if number + 1 < len(spans) else span.stop) - span.start
        yield {name: values[..., :step] / norm[..., :step] for name, values in sums.items()}
        for channel in [*(channel for values in sums.values() for channel in values), norm]:
            _shift(channel, step)


def _spans(frames: int, thickness: int, overlap: float) -> list[range]:
    """Return the frames of every slab, as MONAI places windows."""
    if frames <= thickness:
        return [range(frames)]
    step = max(1, int(thickness * (1 - overlap)))
    slices = dense_patch_slices((frames,), (thickness,), (step,))
    return [range(part.start, part.stop) for (part,) in slices]


def _slab_weights(size: Sequence[int], window: SlidingWindowInferer) -> Tensor:
    """Return the sum of the weights of all windows of a slab, ``(depth, lateral, thickness)``."""
    patch = tuple(window.roi_size)
    # MONAI pads small images, and removes the padding from the result.
    padded = [max(n, m) for n, m in zip(size[:2], patch[:2], strict=True)]
    steps = [
        m if n == m else max(1, int(m * (1 - overlap)))
        for n, m, overlap in zip(padded, patch[:2], _overlap(window)[:2], strict=True)
    ]
    importance = compute_importance_map(patch, mode=window.mode, sigma_scale=window.sigma_scale, dtype=torch.float32)
    weights = torch.zeros(*padded, patch[2])
    for part in dense_patch_slices(padded, patch[:2], steps):
        weights[part] += importance
    first = [(n - m) // 2 for n, m in zip(padded, size[:2], strict=True)]
    return weights[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]


def _overlap(window: SlidingWindowInferer) -> Sequence[float]:
    overlap = window.overlap
    return overlap if isinstance(overlap, Sequence) else (overlap,) * len(window.roi_size)


def _shift(values: Tensor, step: int) -> None:
    """Remove the first frames, and append as many frames of zeros."""
    kept = values.shape[-1] - step
    values[..., :kept] = values[..., step:].clone()
    values[..., kept:] = 0
