"""Interface to a GPU: arrays, kernel launches and memory. Tests implement it without a GPU."""

import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import is_cupy, to_cupy
from cm_lightning.confidence.cuda.pattern import FACTOR, INNER, MOST_NEIGHBOURS, RING, WEIGHTS
from cm_lightning.confidence.cuda.schedule import ASSEMBLED_ROWS, CELLS_PER_BLOCK, PANEL, ROWS, TILE
from cm_lightning.confidence.envelope import envelope

# A NumPy or CuPy array.
Array = Any
# Up to three numbers, as in CUDA.
Extent = tuple[int, ...]
# Function with the arguments kernel, grid, block, and kernel arguments (arrays, ints, floats; 0 for a null pointer),
# and with the size of dynamic shared memory as keyword shared_bytes.
Launch = Callable[..., None]
Precision = type[np.float32] | type[np.float64]

# The files are compiled as one.
SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.cu", "factor.cu", "equations.cu"))
# Constants of the kernels: those of the pattern of a cell, and those of the schedule.
CONSTANTS = {
    "CELL_PIXELS": INNER,
    "RING": RING,
    "RING_PAIRS": WEIGHTS - FACTOR,
    "CELL_WEIGHTS": WEIGHTS,  # those between ring pixels are the last ones
    "CELL_FACTOR": FACTOR,
    "MOST_NEIGHBOURS": MOST_NEIGHBOURS,
    "CELLS_PER_BLOCK": CELLS_PER_BLOCK,
    "PANEL": PANEL,
    "ROWS": ROWS,
    "TILE": TILE,
    "ASSEMBLED_ROWS": ASSEMBLED_ROWS,
}
_DEFINITIONS = tuple(f"-D{name}={value}" for name, value in CONSTANTS.items())
# Compiler options for the type of the factor.
OPTIONS: dict[Precision, tuple[str, ...]] = {
    np.float32: _DEFINITIONS,
    np.float64: (*_DEFINITIONS, "-DDOUBLE_PRECISION"),
}


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

    def view(self, buffer: Array, begin: int, shape: Extent, dtype: Any) -> Array:
        """Return an array in the memory of a buffer of bytes."""

    def envelope(self, lines: Array) -> Array:
        """Compute the envelope of RF lines; see :func:`cm_lightning.confidence.envelope.envelope`."""

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
        kernel = partial(_kernel, OPTIONS[precision])

        def launch(name: str, grid: Extent, block: Extent, *arguments: Any, shared_bytes: int = 0) -> None:
            # CuPy passes an int as long long and a float as double, as the kernels expect.
            kernel(name)(grid, block, arguments, shared_mem=shared_bytes)

        return launch

    def upload(self, array: Any) -> Array:
        """Copy an array of any type to the device, unless it is already there."""
        return to_cupy(array)

    def keep(self, array: NDArray[Any]) -> Array:
        """Copy an array to the device, and keep the copy valid between calls."""
        with self._lasting_memory():
            return self.xp.asarray(array)

    def view(self, buffer: Array, begin: int, shape: Extent, dtype: Any) -> Array:
        """Return an array in the memory of a buffer of bytes."""
        return self.xp.ndarray(shape, dtype, memptr=buffer.data + begin)

    def envelope(self, lines: Array) -> Array:
        """Compute the envelope of RF lines; see :func:`cm_lightning.confidence.envelope.envelope`."""
        with self._lasting_memory():  # CuPy keeps the plans of FFTs with their memory.
            return envelope(lines)

    def _lasting_memory(self) -> Any:
        """Select the memory of CuPy.

        Memory of PyTorch belongs to one of its streams, and is no longer valid when the program ends.
        """
        return self.xp.cuda.using_allocator(self.xp.get_default_memory_pool().malloc)

    def free_bytes(self) -> int:
        """Return the memory that can be allocated, in bytes."""
        return int(self.xp.cuda.runtime.memGetInfo()[0]) + self._reusable_bytes()

    def synchronize(self) -> None:
        """Wait until all launched kernels on all streams have finished."""
        self.xp.cuda.Device().synchronize()


# Process in which a GPU was used first. A process that is forked from it cannot use GPUs.
_process_of_cuda: int | None = None


@contextmanager
def device_of(frames: Any) -> Iterator[CupyDevice]:
    """Select the GPU, the stream and the memory for frames.

    For tensors, and for arrays of NumPy if PyTorch supports GPUs, these are the current stream and the allocator of
    PyTorch, because the allocators of PyTorch and CuPy do not share free memory.

    Args:
        frames: NumPy array, CuPy array or tensor. Without a GPU of their own, the current device of PyTorch is used if
            PyTorch has one, such as that of a process of distributed training, and otherwise that of CuPy.

    Yields:
        The device.

    Raises:
        ValueError: The process was forked from one that used a GPU, or the stream is being captured in a CUDA graph.
    """
    global _process_of_cuda
    import cupy

    if (_process_of_cuda or os.getpid()) != os.getpid() or torch.cuda._is_in_bad_fork():
        raise ValueError(
            "backend 'cuda' cannot be used in a process that was forked from one that used a GPU, such as a worker of "
            "a data loader; compute the maps in the main process, or start workers with the method 'spawn'."
        )
    _process_of_cuda = os.getpid()
    if is_cupy(frames):
        with frames.device:
            _refuse_capture(cupy.cuda.get_current_stream().is_capturing())
            yield CupyDevice()
    elif isinstance(frames, torch.Tensor) and frames.is_cuda:
        with _device_of_torch(frames.device.index) as device:
            yield device
    elif torch.cuda.is_available():
        with _device_of_torch(torch.cuda.current_device()) as device:
            yield device
    else:
        yield CupyDevice()


def _refuse_capture(is_capturing: bool) -> None:
    if is_capturing:
        raise ValueError(
            "Confidence maps cannot be captured in a CUDA graph, because the number of steps depends on the frames."
        )


@contextmanager
def _device_of_torch(number: int) -> Iterator[CupyDevice]:
    """Select a GPU with the current stream and the allocator of PyTorch."""
    import cupy

    with torch.cuda.device(number):
        _refuse_capture(torch.cuda.is_current_stream_capturing())
        stream = torch.cuda.current_stream(number).cuda_stream
        allocator = cupy.cuda.PythonFunctionAllocator(
            lambda size, device: torch.cuda.caching_allocator_alloc(size, device, stream),
            lambda address, device: torch.cuda.caching_allocator_delete(address),  # type: ignore[no-untyped-call]
        )

        def reusable_bytes() -> int:
            return torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)

        with cupy.cuda.Device(number), _cupy_stream(stream, number), cupy.cuda.using_allocator(allocator.malloc):
            yield CupyDevice(reusable_bytes, (torch.cuda.OutOfMemoryError,))


def _cupy_stream(address: int, device: int) -> Any:
    """Return the stream of CuPy for a stream of CUDA."""
    import cupy

    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_CudaStream(address))
    return cupy.cuda.ExternalStream(address, device)  # CuPy < 14


class _CudaStream:
    """Stream with the protocol of CUDA, which older streams of PyTorch lack."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


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

    code = "\n".join(source.read_text(encoding="utf-8") for source in SOURCES)
    return cupy.RawModule(code=code, options=("-std=c++14", *options))
