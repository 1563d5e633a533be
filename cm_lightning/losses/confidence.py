"""The study's confidence-mask cross-entropy."""

from torch import Tensor, nn
from torch.nn import functional as F


class ConfidenceCrossEntropy(nn.Module):
    """Cross-entropy against the confidence mask, equation (1) of the study.

    ``CE_conf = -1/m sum_i (Y_i CM_i) log(Yhat_i)`` over the ``m`` voxels, with one-hot labels ``Y``, the confidence map
    ``CM`` and softmax predictions ``Yhat``. As ``Y_i`` is one-hot, every voxel's cross-entropy, background's too, is
    weighted by its confidence: a voxel of confidence 0 costs nothing whatever is predicted there.
    """

    def forward(self, logits: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: ``(B, C, ...)``.
            label: Class indices, ``(B, 1, ...)``.
            confidence: Confidence map in [0, 1], ``(B, 1, ...)``.

        Returns:
            Scalar, in float32.
        """
        cross_entropy = F.cross_entropy(logits.float(), label[:, 0].long(), reduction="none")
        return (confidence[:, 0].float() * cross_entropy).mean()
