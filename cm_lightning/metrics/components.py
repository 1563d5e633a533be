"""The largest connected component of a class: a common post-processing."""

from collections.abc import Sequence

from monai.transforms import KeepLargestConnectedComponent
from torch import Tensor


def keep_largest(segmentation: Tensor, classes: Sequence[int]) -> Tensor:
    """Set all but the largest connected component of some classes to background.

    Args:
        segmentation: Class indices, ``(depth, lateral[, elevation])``.
        classes: Indices of the classes, each on its own; voxels touch by a face, an edge or a corner.

    Returns:
        Class indices, of the same shape and dtype; the same tensor where there are no classes.
    """
    if not classes:
        return segmentation
    largest = KeepLargestConnectedComponent(applied_labels=list(classes), is_onehot=False, independent=True)
    # MONAI writes into what it is given.
    return largest(segmentation[None].clone())[0].as_tensor().to(segmentation.dtype)
