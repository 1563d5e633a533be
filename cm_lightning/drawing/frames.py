"""Choice of the frame that represents a volume in pictures, and its pixel size."""

from typing import Any

import numpy as np
from torch import Tensor

from cm_lightning.data.ignored import known_only


class LargestLabelFrame:
    """Selection of the frame of a volume with the most labelled pixels; a 2D image has only one frame.

    Args:
        label: Class indices, ``(1, depth, lateral[, elevation])``.
    """

    def __init__(self, label: Tensor) -> None:
        (known,) = known_only(label)
        self.index = None if label.ndim == 3 else int((known[0] > 0).sum(dim=(0, 1)).argmax())

    def title(self, case: str) -> str:
        """Return the name of a case, with the index of the frame along the elevation if it is one of a volume."""
        return case if self.index is None else f"{case}, slice {self.index}"

    def __call__(self, value: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """Return the selected frame.

        Args:
            value: Image, map or label, ``(1, depth, lateral[, elevation])``.

        Returns:
            Frame, ``(depth, lateral)``.
        """
        frame = value[0] if self.index is None else value[0, :, :, self.index]
        array: np.ndarray[Any, np.dtype[Any]] = frame.detach().cpu().numpy()
        return array


def frame_spacing(spacing: Tensor) -> tuple[float, float]:
    """Return the pixel size of frames.

    Args:
        spacing: Voxel size along all axes, ``(2,)`` or ``(3,)``.

    Returns:
        Pixel size in depth and lateral direction, in the same unit.
    """
    depth, lateral = spacing[:2].tolist()
    return depth, lateral
