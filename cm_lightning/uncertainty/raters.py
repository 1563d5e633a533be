"""What repeated labels of one image say: their distribution, consensus, areas and agreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.special import entr

from cm_lightning.errors import InputError

UNDECIDED = 255
PIXELS_AT_ONCE = 2**20


def label_distribution(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.float32]:
    """Share of the labels that give a pixel each class.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes, background included.

    Returns:
        Shares that sum to 1, ``(n_classes, ...)``.

    Raises:
        InputError: A label has a class that is none.
    """
    _check_classes(labels, n_classes)
    return np.stack([(labels == index).mean(axis=0, dtype=np.float32) for index in range(n_classes)])


def entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Entropy of every pixel's distribution over the classes.

    Args:
        probabilities: Shares or probabilities, ``(classes, ...)``.

    Returns:
        Entropy in nats, ``(...)``: 0 where all agree, ``log(classes)`` at most.
    """
    return entr(probabilities).sum(axis=0)


def majority(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Consensus by majority: the class that most labels give a pixel.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes, background included.

    Returns:
        Class indices, ``(...)``. Of classes with equally many labels the first is taken, so background wins a tie.
    """
    return label_distribution(labels, n_classes).argmax(axis=0).astype(np.uint8)


def staple(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Consensus by STAPLE, which weights every label by how well it agrees with the consensus.

    SimpleITK's MultiLabelSTAPLE (Warfield et al. 2004; for several classes Rohlfing et al. 2004).

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes, background included; at most 255.

    Returns:
        Class indices, ``(...)``. Pixels that STAPLE leaves undecided get the majority's class.
    """
    consensus = majority(labels, n_classes)
    if (labels == labels[0]).all():
        return consensus  # there is no error to estimate
    fusion = sitk.MultiLabelSTAPLEImageFilter()
    fusion.SetLabelForUndecidedPixels(UNDECIDED)
    fused = sitk.GetArrayFromImage(fusion.Execute([sitk.GetImageFromArray(label) for label in labels]))
    return np.where(fused == UNDECIDED, consensus, fused)


def areas(labels: NDArray[np.uint8], n_classes: int, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Cross-sectional area of every class in every label and frame.

    Args:
        labels: Class indices, ``(labels, depth, lateral[, elevation])``.
        n_classes: Number of classes, background included.
        spacing: Pixel size in mm in depth and lateral; more values are not looked at.

    Returns:
        Areas of the classes 1, 2, ... in mm², ``(labels, n_classes - 1, frames)``, with one frame in 2D.
    """
    _check_classes(labels, n_classes)
    counts = [(labels == index).sum(axis=(1, 2)).reshape(len(labels), -1) for index in range(1, n_classes)]
    return np.stack(counts, axis=1) * float(spacing[0] * spacing[1])


def pairwise_dice(labels: NDArray[np.uint8], n_classes: int) -> NDArray[np.float64]:
    """Dice of every pair of labels.

    Args:
        labels: Class indices, ``(labels, ...)``.
        n_classes: Number of classes, background included.

    Returns:
        Dice of the classes 1, 2, ..., ``(n_classes - 1, labels, labels)``; NaN where a class is in neither label.
    """
    _check_classes(labels, n_classes)
    flat = labels.reshape(len(labels), -1)
    found = np.empty((n_classes - 1, len(labels), len(labels)))
    for index in range(1, n_classes):
        shared = np.zeros(found.shape[1:])
        for start in range(0, flat.shape[1], PIXELS_AT_ONCE):  # few enough for float32 to count them
            inside = (flat[:, start : start + PIXELS_AT_ONCE] == index).astype(np.float32)
            shared += inside @ inside.T
        sizes = shared.diagonal()
        total = sizes[:, None] + sizes[None, :]
        found[index - 1] = np.divide(2 * shared, total, out=np.full_like(shared, np.nan), where=total > 0)
    return found


@dataclass(frozen=True)
class Agreement:
    """Mean Dice over pairs of labels, of the classes 1, 2, ...; NaN where there is no such pair.

    Attributes:
        intra: Over pairs of labels by one rater, ``(classes,)``.
        inter: Over pairs of labels by two raters, ``(classes,)``.
    """

    intra: NDArray[np.float64]
    inter: NDArray[np.float64]


def agreement(dice: NDArray[np.float64], raters: Sequence[str]) -> Agreement:
    """Average the pairs' Dice, within raters and between them.

    Args:
        dice: Dice of every pair, ``(classes, labels, labels)``, from :func:`pairwise_dice`.
        raters: Who drew each label.

    Returns:
        The two means of every class. Pairs in which neither label has the class are left out.
    """
    drawn_by = np.array(raters)
    same = drawn_by[:, None] == drawn_by[None, :]
    pairs = np.triu(np.ones_like(same), k=1)
    return Agreement(_mean_over_pairs(dice, pairs & same), _mean_over_pairs(dice, pairs & ~same))


def _mean_over_pairs(dice: NDArray[np.float64], pairs: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = dice[:, pairs]
    counts = np.isfinite(values).sum(axis=1)
    return np.divide(np.nansum(values, axis=1), counts, out=np.full(len(dice), np.nan), where=counts > 0)


def _check_classes(labels: NDArray[np.uint8], n_classes: int) -> None:
    if labels.max(initial=0) >= n_classes:
        raise InputError(f"labels must be class indices below {n_classes}, found {labels.max()}.")
