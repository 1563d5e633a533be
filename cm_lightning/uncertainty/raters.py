"""Distribution, consensus, areas and agreement of repeated labels of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.special import entr

from cm_lightning.errors import InputError

# Label that STAPLE gives to undecided pixels.
UNDECIDED = 255
# Number of pixels that are counted at once in float32, which is exact up to 2**24.
PIXELS_AT_ONCE = 2**20


def label_distribution(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.float32]:
    """Compute the relative frequency of each class among the labels, for every pixel.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes including the background.

    Returns:
        Relative frequencies, ``(n_classes, ...)``, which sum to 1 over the classes.

    Raises:
        InputError: A label contains a class index that is too large.
    """
    _check_classes(labels, n_classes)
    return np.stack([(labels == index).mean(axis=0, dtype=np.float32) for index in range(n_classes)])


def entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Compute the Shannon entropy of every pixel's distribution over the classes.

    Args:
        probabilities: Relative frequencies or probabilities, ``(classes, ...)``.

    Returns:
        Entropy in nats, ``(...)``, from 0 (all labels agree) to ``log(classes)``.

    References:
        Shannon, "A mathematical theory of communication", Bell System Technical Journal 1948.
    """
    return entr(probabilities).sum(axis=0)


def majority(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Compute the consensus by majority vote: the most frequent class of every pixel.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes including the background.

    Returns:
        Class indices, ``(...)``. Ties are resolved in favour of the lowest class index, that is, of the background.

    Raises:
        InputError: A label contains a class index that is too large.
    """
    return label_distribution(labels, n_classes).argmax(axis=0).astype(np.uint8)


def staple(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Compute the consensus by STAPLE, which weights every label by its agreement with the consensus.

    The implementation is MultiLabelSTAPLE of SimpleITK.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes including the background, up to 255.

    Returns:
        Class indices, ``(...)``. Pixels that STAPLE leaves undecided get the class of the majority vote.

    Raises:
        InputError: A label contains a class index that is too large.

    References:
        Warfield et al., "Simultaneous truth and performance level estimation (STAPLE): an algorithm for the validation
        of image segmentation", IEEE TMI 2004. Rohlfing et al., "Performance-based classifier combination in atlas-based
        image segmentation using expectation-maximization parameter estimation", IEEE TMI 2004, for several classes.
    """
    consensus = majority(labels, n_classes)
    if (labels == labels[0]).all():
        # STAPLE cannot estimate error rates without errors.
        return consensus
    fusion = sitk.MultiLabelSTAPLEImageFilter()
    fusion.SetLabelForUndecidedPixels(UNDECIDED)
    fused = sitk.GetArrayFromImage(fusion.Execute([sitk.GetImageFromArray(label) for label in labels]))
    return np.where(fused == UNDECIDED, consensus, fused)


def areas(labels: NDArray[np.uint8], n_classes: int, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Compute the cross-sectional area of every class in every label and frame.

    Args:
        labels: Class indices, ``(labels, depth, lateral[, elevation])``.
        n_classes: Number of classes including the background.
        spacing: Pixel size in depth and lateral direction, in mm. Further values are ignored.

    Returns:
        Areas of the classes 1, 2, ... in mm², ``(labels, n_classes - 1, frames)``. 2D labels have one frame.

    Raises:
        InputError: A label contains a class index that is too large.
    """
    _check_classes(labels, n_classes)
    counts = [(labels == index).sum(axis=(1, 2)).reshape(len(labels), -1) for index in range(1, n_classes)]
    return np.stack(counts, axis=1) * float(spacing[0] * spacing[1])


def pairwise_dice(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.float64]:
    """Compute the Dice coefficient of every pair of labels.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes including the background.

    Returns:
        Dice of the classes 1, 2, ..., ``(n_classes - 1, labels, labels)``; NaN if a class is in neither label.

    Raises:
        InputError: A label contains a class index that is too large.
    """
    _check_classes(labels, n_classes)
    flat = labels.reshape(len(labels), -1)
    dice = np.empty((n_classes - 1, len(labels), len(labels)))
    for index in range(1, n_classes):
        intersection = np.zeros(dice.shape[1:])
        for start in range(0, flat.shape[1], PIXELS_AT_ONCE):
            masks = (flat[:, start : start + PIXELS_AT_ONCE] == index).astype(np.float32)
            intersection += masks @ masks.T
        sizes = intersection.diagonal()
        total = sizes[:, None] + sizes[None, :]
        undefined = np.full_like(intersection, np.nan)
        dice[index - 1] = np.divide(2 * intersection, total, out=undefined, where=total > 0)
    return dice


@dataclass(frozen=True)
class Agreement:
    """Mean Dice of pairs of labels, for the classes 1, 2, ...; NaN if there are no pairs.

    Attributes:
        intra: Mean over pairs of labels by the same rater, ``(n_classes - 1,)``.
        inter: Mean over pairs of labels by different raters, ``(n_classes - 1,)``.
    """

    intra: NDArray[np.float64]
    inter: NDArray[np.float64]


def agreement(dice: NDArray[np.float64], raters: Sequence[str]) -> Agreement:
    """Average the Dice of pairs of labels, within and between raters.

    Args:
        dice: Dice of every pair, ``(n_classes - 1, labels, labels)``, from :func:`pairwise_dice`.
        raters: Rater of each label.

    Returns:
        Both means for every class. Pairs in which neither label contains the class are left out.
    """
    names = np.array(raters)
    same = names[:, None] == names[None, :]
    pairs = np.triu(np.ones_like(same), k=1)
    return Agreement(_mean_over_pairs(dice, pairs & same), _mean_over_pairs(dice, pairs & ~same))


def _mean_over_pairs(dice: NDArray[np.float64], pairs: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = dice[:, pairs]
    counts = np.isfinite(values).sum(axis=1)
    return np.divide(np.nansum(values, axis=1), counts, out=np.full(len(dice), np.nan), where=counts > 0)


def _check_classes(labels: NDArray[np.uint8], n_classes: int) -> None:
    if labels.max(initial=0) >= n_classes:
        raise InputError(f"The labels contain class index {labels.max()}; expected indices below {n_classes}.")
