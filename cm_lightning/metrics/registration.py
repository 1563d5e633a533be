"""Quality of displacement fields."""

import torch
from torch import Tensor


def folding_fraction(displacement: Tensor) -> Tensor:
    """Compute the fraction of voxels at which a deformation folds space.

    Args:
        displacement: Displacements in voxels, ``(B, dims, ...)`` with ``dims`` spatial axes.

    Returns:
        Fraction of the voxels with a Jacobian determinant of ``x + displacement(x)`` that is not positive, ``(B,)``.
        Derivatives are central differences.
    """
    dims = displacement.shape[1]
    field = displacement.float()
    gradients = torch.gradient(field, dim=list(range(2, 2 + dims)))
    jacobian = torch.stack(gradients, dim=2).movedim((1, 2), (-2, -1)) + torch.eye(dims, device=field.device)
    return (torch.linalg.det(jacobian) <= 0).float().flatten(1).mean(dim=1)
