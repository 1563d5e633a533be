"""NumPy, CuPy and torch: in and out without a change of kind, and without a copy where there need be none."""

from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Backend = Literal["auto", "cpu", "cuda"]

# Whatever comes in goes out: numpy.ndarray, cupy.ndarray or torch.Tensor.
FrameArray = TypeVar("FrameArray")


def is_cupy(array: object) -> bool:
    """Tell whether this is a CuPy array, without importing CuPy."""
    return type(array).__module__.partition(".")[0] == "cupy"


def array_namespace(array: object) -> Any:
    """Give the module whose functions work on an array: NumPy or CuPy."""
    if is_cupy(array):
        import cupy

        return cupy
    return np


def on_gpu(array: object) -> bool:
    """Tell whether an array lies in a GPU's memory."""
    return is_cupy(array) or (isinstance(array, torch.Tensor) and array.is_cuda)


def choose_backend(backend: Backend, frames: object) -> Literal["cpu", "cuda"]:
    """Decide where to compute.

    Args:
        backend: ``auto`` computes where the frames are, on the CPU if CuPy is missing.
        frames: The frames.

    Returns:
        The backend.

    Raises:
        ValueError: ``cuda`` was asked for and CuPy or a GPU is missing.
    """
    match backend:
        case "cpu":
            return "cpu"
        case "auto":
            return "cuda" if on_gpu(frames) and find_spec("cupy") else "cpu"
        case "cuda":
            if not find_spec("cupy"):
                raise ValueError("backend 'cuda' needs CuPy: install cm_lightning[cuda12] or cm_lightning[cuda13].")
            import cupy

            if not cupy.cuda.is_available():
                raise ValueError("backend 'cuda' needs a GPU that CUDA can use, found none.")
            return "cuda"


def to_numpy(array: Any) -> NDArray[np.generic]:
    """Bring an array to the host; half precisions become float32, bfloat16 being unknown to NumPy."""
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
    """Bring an array to the GPU, without a copy where it is there; a tensor's half precisions and flags as float32."""
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
    """Turn a result into the kind of the frames, on their device.

    Args:
        result: What was computed, as NumPy or CuPy array; for frames that are a tensor it can be one already.
        frames: What it was computed from.

    Returns:
        The result as NumPy array, CuPy array or tensor.
    """
    converted: Any
    if isinstance(frames, torch.Tensor):
        if is_cupy(result):
            result = torch.utils.dlpack.from_dlpack(result)
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
    """Choose the precision of maps: float64 for float64 frames, else float32."""
    return np.float64 if frames.dtype in (torch.float64, np.float64) else np.float32


def intensity_unit(dtype: np.dtype[Any]) -> float:
    """Give the intensity that stands for 1: the largest of an integer type, and 1 of the others."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
