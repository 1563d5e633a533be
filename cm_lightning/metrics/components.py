"""Post-processing that keeps the largest connected component of a class."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def keep_largest(segmentation: Tensor, classes: Sequence[int]) -> Tensor:
    """Set all but the largest connected component of some classes to background.

    Components are found within the bounding box of a class, with 4 bytes per voxel of this box.

    Args:
        segmentation: Class indices, ``(depth, lateral[, elevation])``.
        classes: Indices of the classes, which are processed separately. Voxels that share a face, an edge or a corner
            are connected.

    Returns:
        Class indices of the same shape and dtype. Without classes, this is the same tensor.
    """
    if not classes:
        return segmentation
    result = segmentation.cpu().numpy().copy()
    structure = np.ones((3,) * result.ndim)
    for index in classes:
        mask = result == index
        box = ndimage.find_objects(mask.view(np.uint8))
        if not box or box[0] is None:
            continue
        components, number = ndimage.label(mask[box[0]], structure)
        if number > 1:
            sizes = np.bincount(components.ravel())
            sizes[0] = 0
            result[box[0]][(components > 0) & (components != sizes.argmax())] = 0
    return torch.from_numpy(result).to(segmentation.device)
