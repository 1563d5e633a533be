"""Conversion between NumPy arrays, CuPy arrays and PyTorch tensors, without unnecessary copies."""

from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Backend = Literal["auto", "cpu", "cuda"]

# numpy.ndarray, cupy.ndarray or torch.Tensor. Results have the type of the input.
FrameArray = TypeVar("FrameArray")


def is_cupy(array: object) -> bool:
    """Return whether an object is a CuPy array, without importing CuPy."""
    return type(array).__module__.partition(".")[0] == "cupy"


def array_namespace(array: object) -> Any:
    """Return the module with the functions for an array, NumPy or CuPy."""
    if is_cupy(array):
        import cupy

        return cupy
    return np


def on_gpu(array: object) -> bool:
    """Return whether an array is in the memory of a GPU."""
    return is_cupy(array) or (isinstance(array, torch.Tensor) and array.is_cuda)


def choose_backend(backend: Backend, frames: object) -> Literal["cpu", "cuda"]:
    """Choose between CPU and GPU.

    Args:
        backend: ``cpu``, ``cuda``, or ``auto`` for the device of the frames (the CPU if CuPy is not installed).
        frames: The frames.

    Returns:
        The backend.

    Raises:
        ValueError: The backend is ``cuda``, but CuPy is not installed, or there is no GPU.
    """
    match backend:
        case "cpu":
            return "cpu"
        case "auto":
            return "cuda" if on_gpu(frames) and find_spec("cupy") else "cpu"
        case "cuda":
            if not find_spec("cupy"):
                raise ValueError(
                    "backend 'cuda' needs CuPy, which is not installed; install cm_lightning[cuda12] or "
                    "cm_lightning[cuda13]."
                )
            import cupy

            if not cupy.cuda.is_available():
                raise ValueError("backend 'cuda' needs a GPU with CUDA, found none.")
            return "cuda"


def to_numpy(array: Any) -> NDArray[np.generic]:
    """Convert an array to NumPy. Half-precision tensors become float32, since NumPy does not support bfloat16."""
    if isinstance(array, torch.Tensor):
        array = array.detach()
        if array.dtype in (torch.float16, torch.bfloat16):
            array = array.float()
        array = array.cpu().numpy()
    elif is_cupy(array):
        array = array.get()
    result: NDArray[np.generic] = np.asarray(array)
    return result


def to_cupy(array: Any) -> Any:
    """Convert an array to CuPy, without a copy if it is on the GPU. Half-precision and bool tensors become float32."""
    import cupy

    if isinstance(array, torch.Tensor):
        array = array.detach()
        if array.dtype in (torch.float16, torch.bfloat16, torch.bool):
            array = array.float()
        if array.is_cuda:
            return cupy.from_dlpack(array.contiguous())
        array = array.numpy()
    return cupy.asarray(array)


def convert_like(result: Any, frames: FrameArray) -> FrameArray:
    """Convert a result to the type and device of the frames.

    Args:
        result: NumPy array or CuPy array, or, if the frames are a tensor, a tensor.
        frames: The frames.

    Returns:
        The result as a NumPy array, CuPy array or tensor.
    """
    converted: Any
    if isinstance(frames, torch.Tensor):
        if is_cupy(result):
            # PyTorch may have been built without CUDA.
            result = torch.utils.dlpack.from_dlpack(result) if frames.is_cuda else torch.from_numpy(result.get())
        elif not isinstance(result, torch.Tensor):
            result = torch.from_numpy(np.ascontiguousarray(result))
        converted = result.to(frames.device)
        return converted
    if is_cupy(frames):
        import cupy

        converted = cupy.asarray(result)
        return converted
    converted = to_numpy(result)
    return converted


def result_dtype(frames: Any) -> type[np.floating]:
    """Return the precision of maps: float64 for float64 frames, and float32 otherwise."""
    return np.float64 if frames.dtype in (torch.float64, np.float64) else np.float32


def intensity_unit(dtype: np.dtype[Any]) -> float:
    """Return the intensity that corresponds to 1: the maximum of an integer type, and 1 for other types."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
