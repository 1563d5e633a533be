"""Sides of a frame at which the probe may be, and frames that are flipped or transposed so that it is at the top."""

from typing import Literal, TypeVar

import numpy as np
import torch

Side = Literal["top", "bottom", "left", "right"]
SIDES: tuple[Side, ...] = ("top", "bottom", "left", "right")

# numpy.ndarray, cupy.ndarray or torch.Tensor.
AnyArray = TypeVar("AnyArray")


def turn_to_top(array: AnyArray, side: Side) -> AnyArray:
    """Flip or transpose frames so that a side is at the top; they are mirrored, not rotated.

    Args:
        array: Frames or masks, ``(..., depth, lateral)``.
        side: Side at which the probe is.

    Returns:
        View of the frames with the probe at row 0.
    """
    match side:
        case "bottom":
            return _flip(array, -2)
        case "left":
            return _transpose(array)
        case "right":
            return _transpose(_flip(array, -1))
    return array


def turn_back(array: AnyArray, side: Side) -> AnyArray:
    """Flip or transpose frames with the probe at row 0 so that it is at a side; the inverse of :func:`turn_to_top`.

    Args:
        array: Frames or masks, ``(..., rows, columns)``.
        side: Side at which the probe should be.

    Returns:
        View of the frames.
    """
    match side:
        case "bottom":
            return _flip(array, -2)
        case "left":
            return _transpose(array)
        case "right":
            return _flip(_transpose(array), -1)
    return array


def turned_shape(shape: tuple[int, int], side: Side) -> tuple[int, int]:
    """Return the shape of a frame that was flipped or transposed so that a side is at the top."""
    return shape if side in ("top", "bottom") else (shape[1], shape[0])


def _flip(array: AnyArray, axis: int) -> AnyArray:
    if isinstance(array, torch.Tensor):
        return torch.flip(array, (axis,))  # type: ignore[return-value]
    flipped: AnyArray = array[..., ::-1, :] if axis == -2 else array[..., ::-1]  # type: ignore[index]
    return flipped


def _transpose(array: AnyArray) -> AnyArray:
    if isinstance(array, torch.Tensor):
        return array.transpose(-1, -2)  # type: ignore[return-value]
    transposed: AnyArray = np.swapaxes(array, -1, -2)  # type: ignore[call-overload]
    return transposed
