"""Random numbers of training that depend only on seed, epoch and step, so that a resumed run repeats none."""

import os
import random
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler


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


class EpochSampler(DistributedSampler[int]):
    """Sampler of a random order that depends only on seed and epoch, and that can start within an epoch.

    Several processes take turns in the order of a single one, so that one step of all of them uses the samples of a
    single process with a batch that is as large as theirs together. Lightning leaves a sampler as it is that knows
    about processes; any other one it would wrap in one that does not know where an epoch was interrupted.

    Args:
        length: Number of samples.
        seed: Seed of the run.
        epoch: Function that returns the current epoch.
        skip: Number of samples of this process that the first epoch leaves out, because they were used before the run
            was resumed.
        distinct: Whether the indices of later epochs continue those of earlier ones, ``epoch * length + index``, so
            that data sets can draw random numbers from the index.
        processes: Number of processes. If they do not divide the number of samples, the first ones are repeated.
        process: Index of this process.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        epoch: Callable[[], int],
        skip: int = 0,
        distinct: bool = False,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        super().__init__(cast("Dataset[int]", range(length)), num_replicas=processes, rank=process)
        self._length = length
        self._seed = seed
        self._epoch = epoch
        self._skip = skip
        self._distinct = distinct

    def __iter__(self) -> Iterator[int]:
        """Draw the order of the current epoch."""
        epoch, skip = self._epoch(), self._skip
        self._skip = 0
        generator = torch.Generator().manual_seed(derived_seed(self._seed, epoch))
        order = torch.randperm(self._length, generator=generator).tolist()
        repeated = [order[position % self._length] for position in range(self.total_size)]
        first = epoch * self._length if self._distinct else 0
        yield from (first + index for index in repeated[self.rank :: self.num_replicas][skip:])
