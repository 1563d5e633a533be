"""The five segmentation losses of the study."""

from typing import Literal, get_args

from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.data.ignored import IGNORED_INDEX, is_known
from cm_lightning.errors import InputError
from cm_lightning.losses.confidence import ConfidenceCrossEntropy, Remainder, Target

LossName = Literal["dice", "CE", "diceCE", "CEconf", "diceCEconf"]


class SegmentationLoss(nn.Module):
    """Dice loss, cross-entropy, confidence cross-entropy, or the sum of the Dice loss and a cross-entropy.

    ``diceCEconf`` is the Dice loss of all classes including the background, plus ``cross_entropy_weight`` times the
    confidence cross-entropy::

        1 - 1/C sum_c (2 sum_i Y_ic Yhat_ic) / (sum_i Y_ic + sum_i Yhat_ic)  -  w/m sum_i (Y_i CM_i) log(Yhat_i)

    with one-hot labels ``Y`` and softmax predictions ``Yhat`` of ``C`` classes, ``(B, C, ...)``, the confidence map
    ``CM``, ``(B, 1, ...)``, and ``m`` voxels. The Dice loss is computed per image, or over the batch with
    ``batch_dice``. Confidence weights the cross-entropy of all classes including the background (see
    :class:`ConfidenceCrossEntropy`), but not the Dice loss. The study does not define the weights of ``diceCEconf``;
    equal weights are a choice of this package.

    Args:
        name: Name of the loss.
        batch_dice: Sum intersections and areas over the batch before computing the Dice loss. Otherwise, the Dice loss
            of a class that is absent from an image is almost 1 if any voxel is predicted as this class.
        cross_entropy_weight: Weight of the cross-entropy when it is added to the Dice loss.
        target: Target of the confidence cross-entropy: ``mask``, as in the study, or ``soft``.
        remainder: Distribution of the probability ``1 - confidence`` of the soft target: all to the background class
            (``background``), or equally to all classes (``uniform``).
        dice_background: Whether the background is one of the classes of the Dice loss, as in the study. Without it, as
            in nnU-Net, small classes have larger gradients.

    Raises:
        InputError: The name is unknown, the weight is not positive, or a soft target is combined with a loss without
            confidence.

    References:
        Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical image segmentation", 3DV
        2016, for the Dice loss. Gonzalez Duque, Zirus et al., "Can ultrasound confidence maps predict sonographers'
        labeling variability?", 2023, for the confidence cross-entropy.
    """

    def __init__(
        self,
        name: LossName,
        batch_dice: bool = False,
        cross_entropy_weight: float = 1.0,
        target: Target = "mask",
        remainder: Remainder = "background",
        dice_background: bool = True,
    ) -> None:
        super().__init__()
        if name not in get_args(LossName):
            raise InputError(f"Unknown loss {name!r}; expected one of {', '.join(get_args(LossName))}.")
        if not cross_entropy_weight > 0:
            raise InputError(f"cross_entropy_weight must be positive, found {cross_entropy_weight}.")
        self.name = name
        self.needs_confidence = name.endswith("conf")
        if target == "soft" and not self.needs_confidence:
            raise InputError(f"The soft target needs the loss CEconf or diceCEconf, found {name}.")
        self.dice = DiceLoss(dice_background, batch=batch_dice) if name.startswith("dice") else None
        self.weight = 1.0 if self.dice is None else cross_entropy_weight
        self.confidence_cross_entropy = ConfidenceCrossEntropy(target, remainder) if self.needs_confidence else None

    def forward(self, logits: Tensor, label: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Compute the loss in float32, also for inputs of lower precision.

        Args:
            logits: Logits, ``(B, C, ...)``.
            label: Class indices, ``(B, 1, ...)``; 255 for voxels that are not counted.
            confidence: Confidence map from 0 to 1, ``(B, 1, ...)``; only CEconf and diceCEconf need it.

        Returns:
            Loss, a scalar.

        Raises:
            InputError: The loss needs a confidence map, but ``confidence`` is None.
        """
        logits = logits.float()
        loss = logits.new_zeros(())
        if self.dice is not None:
            known = is_known(label)
            one_hot = F.one_hot(label[:, 0].long().masked_fill(~known[:, 0], 0), logits.shape[1]).movedim(-1, 1)
            loss = loss + self.dice(logits.softmax(dim=1) * known, one_hot * known)
        if self.confidence_cross_entropy is not None:
            if confidence is None:
                raise InputError(
                    f"The loss {self.name} needs confidence maps, but the batch has none; set data.confidence_mode to "
                    "native or on_the_fly."
                )
            loss = loss + self.weight * self.confidence_cross_entropy(logits, label, confidence)
        elif self.name.endswith("CE"):
            total = F.cross_entropy(logits, label[:, 0].long(), ignore_index=IGNORED_INDEX, reduction="sum")
            # A patch may contain no known voxels, for which the mean would be undefined.
            loss = loss + self.weight * total / is_known(label).sum().clamp_min(1)
        return loss
