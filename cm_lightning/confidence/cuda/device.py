"""Where kernels run: arrays, launches and memory of one GPU, behind an interface that tests fill in without one."""

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
# Three numbers at most, as in CUDA.
Extent = tuple[int, ...]
# Kernel, grid, block, arguments (arrays, ints, floats; 0 for a null pointer).
Launch = Callable[..., None]
Precision = type[np.float32] | type[np.float64]

SOURCE = Path(__file__).with_name("kernels.cu")
# Compiler options that choose the factor's type.
OPTIONS: dict[Precision, tuple[str, ...]] = {np.float32: (), np.float64: ("-DDOUBLE_PRECISION",)}


class Device(Hashable, Protocol):
    """What the solver needs of a GPU; equal devices share their memory.

    Attributes:
        xp: NumPy's functions for the device's arrays.
        out_of_memory: What running out of memory raises.
    """

    xp: Any
    out_of_memory: tuple[type[BaseException], ...]

    def kernels(self, precision: Precision) -> Launch:
        """Give the function that launches kernels with a factor of some type."""

    def upload(self, array: Any) -> Array:
        """Bring an array of any kind to the device, without a copy where it is there."""

    def keep(self, array: NDArray[Any]) -> Array:
        """Bring an array to the device that will be kept from one call to the next."""

    def free_bytes(self) -> int:
        """Tell how much memory can be allocated."""

    def synchronize(self) -> None:
        """Wait until everything that was launched is done."""


class CupyDevice:
    """The current device of CuPy, on its current stream and with its current allocator.

    Two of these are equal if they are the same GPU.

    Args:
        reusable_bytes: Tells how much memory the allocator holds without using it.
        out_of_memory: What the allocator raises besides CuPy's own exception.
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
        """Give the function that launches kernels with a factor of some type."""

        def launch(name: str, grid: Extent, block: Extent, *arguments: Any) -> None:
            # kernels.cu takes every integer as long long, which is what CuPy makes of numpy.int64.
            _kernel(OPTIONS[precision], name)(
                grid, block, tuple(np.int64(value) if isinstance(value, int) else value for value in arguments)
            )

        return launch

    def upload(self, array: Any) -> Array:
        """Bring an array of any kind to the device, without a copy where it is there."""
        return to_cupy(array)

    def keep(self, array: NDArray[Any]) -> Array:
        """Bring an array to the device that will be kept from one call to the next.

        In CuPy's own memory: that of torch belongs to one of its streams, and to no one when the program ends.
        """
        with self.xp.cuda.using_allocator(self.xp.get_default_memory_pool().malloc):
            return self.xp.asarray(array)

    def free_bytes(self) -> int:
        """Tell how much memory can be allocated."""
        return int(self.xp.cuda.runtime.memGetInfo()[0]) + self._reusable_bytes()

    def synchronize(self) -> None:
        """Wait until everything that was launched is done, on any stream."""
        self.xp.cuda.Device().synchronize()


@contextmanager
def device_of(frames: Any) -> Iterator[CupyDevice]:
    """Work on the GPU that holds the frames, in its owner's order of events.

    For a tensor that is torch's current stream, and torch's allocator: it and CuPy's would starve each other.

    Args:
        frames: A CuPy array, or a tensor on a GPU; anything else is worked on on CuPy's current device.

    Yields:
        The device.
    """
    import cupy

    if isinstance(frames, torch.Tensor) and frames.is_cuda:
        number = frames.device.index
        stream = torch.cuda.current_stream(number).cuda_stream
        allocator = cupy.cuda.PythonFunctionAllocator(
            # Frames of one column have kinds of edges without any; torch returns no address for 0 bytes.
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
    """Allocate what will be handed back for some frames.

    Args:
        device: Where it will be filled.
        frames: For a tensor on a GPU the result is one too, made by torch, so that its memory is torch's to manage for
            as long as the caller keeps it.
        shape: Of the result.
        precision: Its type.

    Returns:
        Zeros, a tensor or an array of the device; and the same memory as an array of the device.
    """
    if isinstance(frames, torch.Tensor) and frames.is_cuda:
        dtype = torch.float64 if precision is np.float64 else torch.float32
        tensor = torch.zeros(shape, dtype=dtype, device=frames.device)
        return tensor, device.upload(tensor)
    array = device.xp.zeros(shape, precision)
    return array, array


@lru_cache
def _kernel(options: tuple[str, ...], name: str) -> Any:
    """Look a kernel up, once; CuPy loads it on each device that launches it."""
    return _module(options).get_function(name)


@lru_cache
def _module(options: tuple[str, ...]) -> Any:
    """Compile the kernels, once for each type; CuPy keeps the result on disk."""
    import cupy

    return cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=("-std=c++14", *options))
