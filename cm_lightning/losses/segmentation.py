"""The five losses that the study compares, behind one call."""

from typing import Literal, get_args

from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.errors import InputError
from cm_lightning.losses.confidence import ConfidenceCrossEntropy

LossName = Literal["dice", "CE", "diceCE", "CEconf", "diceCEconf"]


class SegmentationLoss(nn.Module):
    """Dice, cross-entropy, the study's confidence cross-entropy, or a sum of two with equal weights.

    The study does not define ``diceCEconf``; here it is Dice on the plain label plus CE_conf.

    Args:
        name: Which loss.
        batch_dice: Sum intersections and areas over the batch before dividing. Without it, a class that is absent from
            an image costs that image nearly 1 as soon as anything is predicted.

    Raises:
        InputError: Unknown name.
    """

    def __init__(self, name: LossName, batch_dice: bool = False) -> None:
        super().__init__()
        if name not in get_args(LossName):
            raise InputError(f"Unknown loss {name!r}; expected one of {', '.join(get_args(LossName))}.")
        self.name = name
        self.needs_confidence = name.endswith("conf")
        self.dice = DiceLoss(to_onehot_y=True, softmax=True, batch=batch_dice) if name.startswith("dice") else None
        self.confidence_cross_entropy = ConfidenceCrossEntropy() if self.needs_confidence else None

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
            loss = loss + self.confidence_cross_entropy(logits, label, confidence)
        elif self.name.endswith("CE"):
            loss = loss + F.cross_entropy(logits, label[:, 0].long())
        return loss
