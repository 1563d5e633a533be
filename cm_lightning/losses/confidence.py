"""Cross-entropy against the study's confidence mask, and against one that is a distribution."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cm_lightning.errors import InputError

Target = Literal["mask", "soft"]
Remainder = Literal["background", "uniform"]


class ConfidenceCrossEntropy(nn.Module):
    """Cross-entropy against a confidence mask.

    With one-hot labels ``Y`` ``(B, C, ...)``, the confidence map ``CM`` ``(B, 1, ...)`` and softmax predictions
    ``Yhat`` ``(B, C, ...)``, over the ``m`` voxels of the batch:

    * ``target="mask"`` is equation (1) of the study, ``-1/m sum_i (Y_i CM_i) log(Yhat_i)``. As ``Y_i`` is one-hot, this
      is every voxel's cross-entropy, weighted by its confidence. Background is a class like the others and is weighted
      alike: where confidence is low, a wrong class on background costs as little as a missed one. The mask ``Y CM``
      does not sum to 1 over the classes, so its minimiser is not ``CM``: a voxel that can be fitted alone goes to
      certainty (``Yhat = Y``) however low its confidence is, and among voxels that look the same, the labels of
      confident ones count for more.
    * ``target="soft"`` gives the mass that confidence takes from the label back, ``T = CM Y + (1 - CM) R`` and
      ``-1/m sum_i sum_c T_ic log(Yhat_ic)``. ``T`` is a distribution, so the minimiser is ``Yhat = T``: the
      predicted probability of a class is its confidence (plus, with ``remainder="uniform"``, its share of the rest).
      ``R`` is certain background, for which a label of background stays as it is, or uniform over the classes.

    Args:
        target: ``mask`` or ``soft``.
        remainder: Where ``soft`` puts the mass that confidence removes: ``background`` or ``uniform``.

    Raises:
        InputError: Unknown target or remainder.
    """

    def __init__(self, target: Target = "mask", remainder: Remainder = "background") -> None:
        super().__init__()
        for name, value, choices in (("target", target, Target), ("remainder", remainder, Remainder)):
            if value not in get_args(choices):
                raise InputError(f"Unknown {name} {value!r}; expected one of {', '.join(get_args(choices))}.")
        self.target = target
        self.remainder = remainder

    def forward(self, logits: Tensor, label: Tensor, confidence: Tensor) -> Tensor:
        """Compute the loss, in float32 whatever comes in.

        Args:
            logits: ``(B, C, ...)``.
            label: Class indices, ``(B, 1, ...)``.
            confidence: Confidence map in [0, 1], ``(B, 1, ...)``.

        Returns:
            Scalar.
        """
        log_probabilities = logits.float().log_softmax(dim=1)
        confidence = confidence[:, 0].float()
        labelled = -log_probabilities.gather(1, label.long())[:, 0]
        if self.target == "mask":
            return (confidence * labelled).mean()
        match self.remainder:
            case "background":
                elsewhere = -log_probabilities[:, 0]
            case "uniform":
                elsewhere = -log_probabilities.mean(dim=1)
        return torch.lerp(elsewhere, labelled, confidence).mean()
