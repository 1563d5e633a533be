"""Random numbers of training that depend only on seed, epoch and step, so that a resumed run repeats none."""

import os
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


def run_seed() -> int:
    """Return the seed of the run that ``seed_everything`` has set; a random one without it."""
    return int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed() % 2**32)


def derived_seed(*numbers: int) -> int:
    """Combine numbers such as seed, epoch and step to an independent seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def seed_step(*numbers: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch for one training step.

    Args:
        *numbers: Seed of the run, epoch, step in the epoch, and number of the process.
    """
    seed = derived_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the generator of other libraries)
    torch.manual_seed(seed)


class EpochSampler(Sampler[int]):
    """Sampler of a random order that depends only on seed and epoch, and that can start within an epoch.

    Args:
        length: Number of samples.
        seed: Seed of the run.
        epoch: Function that returns the current epoch.
        skip: Number of samples that the first epoch leaves out, because they were used before the run was resumed.
        distinct: Whether the indices of later epochs continue those of earlier ones, ``epoch * length + index``, so
            that data sets can draw random numbers from the index.
    """

    def __init__(self, length: int, seed: int, epoch: Callable[[], int], skip: int = 0, distinct: bool = False) -> None:
        self._length = length
        self._seed = seed
        self._epoch = epoch
        self._skip = skip
        self._distinct = distinct

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        """Draw the order of the current epoch."""
        epoch, skip = self._epoch(), self._skip
        self._skip = 0
        generator = torch.Generator().manual_seed(derived_seed(self._seed, epoch))
        order = torch.randperm(self._length, generator=generator).tolist()
        first = epoch * self._length if self._distinct else 0
        yield from (first + index for index in order[skip:])
