"""Post-processing that keeps the largest connected component of a class."""

from collections.abc import Sequence

from monai.transforms import KeepLargestConnectedComponent
from torch import Tensor


def keep_largest(segmentation: Tensor, classes: Sequence[int]) -> Tensor:
    """Set all but the largest connected component of some classes to background.

    Args:
        segmentation: Class indices, ``(depth, lateral[, elevation])``.
        classes: Indices of the classes, which are processed separately. Voxels that share a face, an edge or a corner
            are connected.

    Returns:
        Class indices of the same shape and dtype. Without classes, this is the same tensor.
    """
    if not classes:
        return segmentation
    largest = KeepLargestConnectedComponent(applied_labels=list(classes), is_onehot=False, independent=True)
    # MONAI modifies its input.
    return largest(segmentation[None].clone())[0].as_tensor().to(segmentation.dtype)
