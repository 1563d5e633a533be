"""The five losses that the study compares, behind one call."""

from typing import Literal, get_args

from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.errors import InputError
from cm_lightning.losses.confidence import ConfidenceCrossEntropy, Remainder, Target

LossName = Literal["dice", "CE", "diceCE", "CEconf", "diceCEconf"]


class SegmentationLoss(nn.Module):
    """Dice, cross-entropy, the study's confidence cross-entropy, or Dice and one of them.

    ``diceCEconf`` is Dice on the plain label, background included as a class, plus ``cross_entropy_weight`` times the
    confidence cross-entropy::

        1 - 1/C sum_c (2 sum_i Y_ic Yhat_ic) / (sum_i Y_ic + sum_i Yhat_ic)  -  w/m sum_i (Y_i CM_i) log(Yhat_i)

    with one-hot labels ``Y`` and softmax predictions ``Yhat`` of ``C`` classes, ``(B, C, ...)``, the map ``CM``
    ``(B, 1, ...)`` and ``m`` voxels; Dice per image, or with ``batch_dice`` over the batch. Confidence weights
    background's voxels like any class's in the second term (see :class:`ConfidenceCrossEntropy`) and none in the first.
    The study does not define ``diceCEconf``: equal weights are ours.

    Args:
        name: Which loss.
        batch_dice: Sum intersections and areas over the batch before dividing. Without it, a class that is absent from
            an image costs that image nearly 1 as soon as anything is predicted.
        cross_entropy_weight: Weight of the cross-entropy beside Dice.
        target: Target of the confidence cross-entropy: the study's ``mask``, or ``soft``.
        remainder: Where ``soft`` puts the mass that confidence removes.

    Raises:
        InputError: Unknown name, or a weight that is not positive.
    """

    def __init__(
        self,
        name: LossName,
        batch_dice: bool = False,
        cross_entropy_weight: float = 1.0,
        target: Target = "mask",
        remainder: Remainder = "background",
    ) -> None:
        super().__init__()
        if name not in get_args(LossName):
            raise InputError(f"Unknown loss {name!r}; expected one of {', '.join(get_args(LossName))}.")
        if not cross_entropy_weight > 0:
            raise InputError(f"cross_entropy_weight must be positive, found {cross_entropy_weight}.")
        self.name = name
        self.needs_confidence = name.endswith("conf")
        if target == "soft" and not self.needs_confidence:
            raise InputError(f"A soft target is one of the losses CEconf and diceCEconf; found the loss {name}.")
        self.dice = DiceLoss(to_onehot_y=True, softmax=True, batch=batch_dice) if name.startswith("dice") else None
        self.weight = 1.0 if self.dice is None else cross_entropy_weight
        self.confidence_cross_entropy = ConfidenceCrossEntropy(target, remainder) if self.needs_confidence else None

    def forward(self, logits: Tensor, label: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Compute the loss in float32.

        Args:
            logits: ``(B, C, ...)``.
            label: Class indices, ``(B, 1, ...)``.
            confidence: Confidence map, ``(B, 1, ...)``; needed by CEconf and diceCEconf.

        Returns:
            Scalar.

        Raises:
            InputError: The loss needs a confidence map and none is given.
        """
        logits = logits.float()
        loss = logits.new_zeros(())
        if self.dice is not None:
            loss = loss + self.dice(logits, label)
        if self.confidence_cross_entropy is not None:
            if confidence is None:
                raise InputError(
                    f"The loss {self.name} needs confidence maps; found none (data.confidence_mode none?)."
                )
            loss = loss + self.weight * self.confidence_cross_entropy(logits, label, confidence)
        elif self.name.endswith("CE"):
            loss = loss + self.weight * F.cross_entropy(logits, label[:, 0].long())
        return loss
