"""Interface to a GPU: arrays, kernel launches and memory. Tests implement it without a GPU."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import is_cupy, to_cupy

# A NumPy or CuPy array.
Array = Any
# Up to three numbers, as in CUDA.
Extent = tuple[int, ...]
# Function with the arguments kernel, grid, block, and kernel arguments (arrays, ints, floats; 0 for a null pointer),
# and with the size of dynamic shared memory as keyword shared_bytes.
Launch = Callable[..., None]
Precision = type[np.float32] | type[np.float64]

SOURCE = Path(__file__).with_name("kernels.cu")
# Compiler options for the type of the factor.
OPTIONS: dict[Precision, tuple[str, ...]] = {np.float32: (), np.float64: ("-DDOUBLE_PRECISION",)}


class Device(Hashable, Protocol):
    """Interface to a GPU. Equal devices share their memory.

    Attributes:
        xp: Module with NumPy's functions for arrays of the device.
        out_of_memory: Exceptions that are raised if the memory is exhausted.
    """

    xp: Any
    out_of_memory: tuple[type[BaseException], ...]

    def kernels(self, precision: Precision) -> Launch:
        """Return the function that launches kernels for a type of the factor."""

    def upload(self, array: Any) -> Array:
        """Copy an array of any type to the device, unless it is already there."""

    def keep(self, array: NDArray[Any]) -> Array:
        """Copy an array to the device, and keep the copy valid between calls."""

    def free_bytes(self) -> int:
        """Return the memory that can be allocated, in bytes."""

    def synchronize(self) -> None:
        """Wait until all launched kernels have finished."""


class CupyDevice:
    """Current device of CuPy, with its current stream and allocator.

    Two such devices are equal if they are the same GPU.

    Args:
        reusable_bytes: Function that returns the unused memory of the allocator in bytes.
        out_of_memory: Exceptions of the allocator in addition to that of CuPy.
    """

    def __init__(
        self, reusable_bytes: Callable[[], int] | None = None, out_of_memory: tuple[type[BaseException], ...] = ()
    ) -> None:
        import cupy

        self.xp = cupy
        self._number = int(cupy.cuda.Device().id)
        self.out_of_memory = (cupy.cuda.memory.OutOfMemoryError, *out_of_memory)
        self._reusable_bytes = reusable_bytes or cupy.get_default_memory_pool().free_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CupyDevice) and self._number == other._number

    def __hash__(self) -> int:
        return hash((CupyDevice, self._number))

    def kernels(self, precision: Precision) -> Launch:
        """Return the function that launches kernels for a type of the factor."""

        def launch(name: str, grid: Extent, block: Extent, *arguments: Any, shared_bytes: int = 0) -> None:
            # All integers in kernels.cu are long long, to which CuPy converts numpy.int64.
            _kernel(OPTIONS[precision], name)(
                grid,
                block,
                tuple(np.int64(value) if isinstance(value, int) else value for value in arguments),
                shared_mem=shared_bytes,
            )

        return launch

    def upload(self, array: Any) -> Array:
        """Copy an array of any type to the device, unless it is already there."""
        return to_cupy(array)

    def keep(self, array: NDArray[Any]) -> Array:
        """Copy an array to the device, and keep the copy valid between calls.

        It uses the memory of CuPy, because memory of PyTorch belongs to one of its streams, and is no longer valid when
        the program ends.
        """
        with self.xp.cuda.using_allocator(self.xp.get_default_memory_pool().malloc):
            return self.xp.asarray(array)

    def free_bytes(self) -> int:
        """Return the memory that can be allocated, in bytes."""
        return int(self.xp.cuda.runtime.memGetInfo()[0]) + self._reusable_bytes()

    def synchronize(self) -> None:
        """Wait until all launched kernels on all streams have finished."""
        self.xp.cuda.Device().synchronize()


@contextmanager
def device_of(frames: Any) -> Iterator[CupyDevice]:
    """Select the GPU and the stream of the frames.

    For tensors, the current stream and the allocator of PyTorch are used, because the allocators of PyTorch and CuPy do
    not share free memory.

    Args:
        frames: CuPy array, or tensor on a GPU. For other arrays, the current device of CuPy is used.

    Yields:
        The device.
    """
    import cupy

    if isinstance(frames, torch.Tensor) and frames.is_cuda:
        number = frames.device.index
        stream = torch.cuda.current_stream(number).cuda_stream
        allocator = cupy.cuda.PythonFunctionAllocator(
            # Frames with one column have empty arrays of weights, but PyTorch returns no address for 0 bytes.
            lambda size, device: torch.cuda.caching_allocator_alloc(max(size, 1), device, stream),
            lambda address, device: torch.cuda.caching_allocator_delete(address),  # type: ignore[no-untyped-call]
        )

        def reusable_bytes() -> int:
            return torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)

        with (
            torch.cuda.device(number),
            cupy.cuda.Device(number),
            cupy.cuda.ExternalStream(stream, number),
            cupy.cuda.using_allocator(allocator.malloc),
        ):
            yield CupyDevice(reusable_bytes, (torch.cuda.OutOfMemoryError,))
    elif is_cupy(frames):
        with frames.device:
            yield CupyDevice()
    else:
        yield CupyDevice()


def make_result(device: Device, frames: Any, shape: tuple[int, ...], precision: type[np.floating]) -> tuple[Any, Array]:
    """Allocate the result for some frames.

    Args:
        device: The device.
        frames: The frames. For a tensor on a GPU, the result is also a tensor, so that PyTorch manages its memory.
        shape: Shape of the result.
        precision: Type of the result.

    Returns:
        Tensor or array of zeros, and an array of the device with the same memory.
    """
    if isinstance(frames, torch.Tensor) and frames.is_cuda:
        dtype = torch.float64 if precision is np.float64 else torch.float32
        tensor = torch.zeros(shape, dtype=dtype, device=frames.device)
        return tensor, device.upload(tensor)
    array = device.xp.zeros(shape, precision)
    return array, array


@lru_cache
def _kernel(options: tuple[str, ...], name: str) -> Any:
    """Return a kernel. CuPy loads it on every device on which it is launched."""
    return _module(options).get_function(name)


@lru_cache
def _module(options: tuple[str, ...]) -> Any:
    """Compile the kernels for a type of the factor. CuPy caches the result on disk."""
    import cupy

    return cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=("-std=c++14", *options))
