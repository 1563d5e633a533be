"""Cross-entropy with the confidence mask of the study, or with a soft target."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cm_lightning.data.ignored import is_known
from cm_lightning.errors import InputError

Target = Literal["mask", "soft"]
Remainder = Literal["background", "uniform"]


class ConfidenceCrossEntropy(nn.Module):
    """Cross-entropy with a target that depends on confidence.

    Let ``Y`` be one-hot labels, ``(B, C, ...)``, ``CM`` a confidence map, ``(B, 1, ...)``, ``Yhat`` softmax
    predictions, ``(B, C, ...)``, and ``m`` the number of voxels in the batch.

    * ``target="mask"`` is equation (1) of the study, ``-1/m sum_i (Y_i CM_i) log(Yhat_i)``: the cross-entropy of each
      voxel, weighted by its confidence. This applies to all classes including the background, so at low confidence
      false positives are penalised as little as false negatives. Since the mask ``Y CM`` does not sum to 1 over the
      classes, the loss is not minimised by ``Yhat = CM``: a network that can fit each voxel independently predicts
      ``Yhat = Y`` at any confidence. For voxels with the same appearance, labels with higher confidence have a larger
      weight.
    * ``target="soft"`` uses the distribution ``T = CM Y + (1 - CM) R``, and the loss is ``-1/m sum_i sum_c T_ic
      log(Yhat_ic)``. It is minimised by ``Yhat = T``, so the predicted probability of a class is its confidence
      (plus its share of the remainder, if that is uniform). ``R`` is the background class, in which case labels of the
      background are unchanged, or the uniform distribution over all classes.

    Args:
        target: ``mask`` or ``soft``.
        remainder: Distribution ``R`` of the soft target, ``background`` or ``uniform``.

    Raises:
        InputError: The target or remainder is unknown.

    References:
        Gonzalez Duque, Zirus et al., "Can ultrasound confidence maps predict sonographers' labeling variability?",
        2023, equation 1.
    """

    def __init__(self, target: Target = "mask", remainder: Remainder = "background") -> None:
        super().__init__()
        for name, value, choices in (("target", target, Target), ("remainder", remainder, Remainder)):
            if value not in get_args(choices):
                raise InputError(f"Unknown {name} {value!r}; expected one of {', '.join(get_args(choices))}.")
        self.target = target
        self.remainder = remainder

    def forward(self, logits: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """Compute the loss in float32, also for inputs of lower precision.

        Args:
            logits: Logits, ``(B, C, ...)``.
            label: Class indices, ``(B, 1, ...)``; 255 for voxels that are not counted.
            confidence: Confidence map from 0 to 1, ``(B, 1, ...)``.

        Returns:
            Loss, a scalar.
        """
        log_probabilities = logits.float().log_softmax(dim=1)
        confidence = confidence[:, 0].float()
        known = is_known(label)
        label_loss = -log_probabilities.gather(1, label.long().masked_fill(~known, 0))[:, 0]
        if self.target == "mask":
            loss = confidence * label_loss
        else:
            match self.remainder:
                case "background":
                    remainder_loss = -log_probabilities[:, 0]
                case "uniform":
                    remainder_loss = -log_probabilities.mean(dim=1)
            loss = torch.lerp(remainder_loss, label_loss, confidence)
        return (loss * known[:, 0]).sum() / known.sum().clamp_min(1)
