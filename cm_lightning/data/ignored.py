"""Voxels without a known label, which neither losses nor metrics count."""

from torch import Tensor

# Class index of voxels whose label file says that they are to be ignored.
IGNORED_INDEX = 255


def is_known(label: Tensor) -> Tensor:
    """Return which voxels have a known label.

    Args:
        label: Class indices of any shape.

    Returns:
        Bool, of the same shape.
    """
    return label != IGNORED_INDEX


def known_only(label: Tensor, *segmentations: Tensor) -> tuple[Tensor, ...]:
    """Set voxels without a known label to background, in the label and in segmentations that are compared with it.

    Args:
        label: Class indices, of any shape.
        *segmentations: Class indices, of the same shape.

    Returns:
        The label and the segmentations; the same tensors if all voxels are known.
    """
    unknown = ~is_known(label)
    if not unknown.any():
        return (label, *segmentations)
    return tuple(value.masked_fill(unknown, 0) for value in (label, *segmentations))
