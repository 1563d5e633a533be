"""Which frame of a volume is shown, and the size of its pixels."""

from typing import Any

import numpy as np
from torch import Tensor


class LargestLabelFrame:
    """The frame of a volume with the most labelled pixels; of a 2D image, the image.

    Args:
        label: ``(1, depth, lateral[, elevation])``.
    """

    def __init__(self, label: Tensor) -> None:
        self.index = None if label.ndim == 3 else int((label[0] > 0).sum(dim=(0, 1)).argmax())

    def __call__(self, value: Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """Cut the frame from ``(1, depth, lateral[, elevation])``."""
        picked = value[0] if self.index is None else value[0, :, :, self.index]
        array: np.ndarray[Any, np.dtype[Any]] = picked.detach().cpu().numpy()
        return array


def frame_spacing(spacing: Tensor) -> tuple[float, float]:
    """Give the pixel size in depth and lateral."""
    depth, lateral = spacing[:2].tolist()
    return depth, lateral
