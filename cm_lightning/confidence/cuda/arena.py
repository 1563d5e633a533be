"""Memory of the arrays of a chunk of frames."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cm_lightning.confidence.cuda.device import Array, Device

# Distance to which the beginning of every array is rounded up, in bytes.
ALIGNMENT = 256
# Maximum number of arrays at the same time, for the size of an arena.
MAX_ARRAYS = 64


class Arena:
    """One block of memory on the device, from which arrays are taken one after the other, as from a stack.

    This replaces the allocation of every single array, which takes longer on the CPU than its use on the GPU.

    Args:
        device: The device.
        size: Total size of the arrays that will be in use at the same time, in bytes, without alignment.
    """

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._size = size + MAX_ARRAYS * ALIGNMENT
        self._buffer = device.xp.empty(self._size, np.uint8)
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Take an array from the free memory, without initialising it.

        Args:
            shape: Shape of the array.
            dtype: Type of its values.

        Returns:
            The array, which is valid until the end of the surrounding :meth:`temporary` block, if any.

        Raises:
            RuntimeError: The arena is too small.
        """
        begin = -(-self._used // ALIGNMENT) * ALIGNMENT
        end = begin + math.prod(shape) * np.dtype(dtype).itemsize
        if end > self._size:
            raise RuntimeError(f"An arena of {self._size} bytes is too small for an array that ends at {end} bytes.")
        self._used = end
        return self._device.view(self._buffer, begin, shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Take an array of zeros; see :meth:`take`."""
        array = self.take(shape, dtype)
        array.fill(0)
        return array

    def clear(self) -> None:
        """Give back all arrays."""
        self._used = 0

    @contextmanager
    def temporary(self) -> Iterator[None]:
        """Give back the arrays that are taken within the block at its end."""
        used = self._used
        try:
            yield
        finally:
            self._used = used
