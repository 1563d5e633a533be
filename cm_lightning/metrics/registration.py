"""How good a displacement field is."""

import torch
from torch import Tensor


def folding_fraction(displacement: Tensor) -> Tensor:
    """Give the share of voxels at which a displacement folds space.

    Args:
        displacement: In voxels, ``(B, dims, ...)`` with ``dims`` spatial axes.

    Returns:
        Share of the voxels where the determinant of the Jacobian of ``x + displacement(x)``, by central differences, is
        not positive; ``(B,)``.
    """
    dims = displacement.shape[1]
    field = displacement.float()
    gradients = torch.gradient(field, dim=list(range(2, 2 + dims)))
    jacobian = torch.stack(gradients, dim=2).movedim((1, 2), (-2, -1)) + torch.eye(dims, device=field.device)
    return (torch.linalg.det(jacobian) <= 0).float().flatten(1).mean(dim=1)
