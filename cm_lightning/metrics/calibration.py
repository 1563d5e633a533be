"""Calibration: predicted probabilities of a class compared with its observed frequency."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

# Number of bins of equal width from 0 to 1, the default of MONAI.
BINS = 20
SUMS = ["count", "probability", "positive", "squared_error"]
# Number of voxels that are processed at once, so that they fit into the cache of a CPU. All voxels of a volume would
# take gigabytes as int64 and float64.
VOXELS_AT_A_TIME = 2**18

Row = dict[str, Any]
Numbers = NDArray[np.float64] | NDArray[np.int64]


def calibration_rows(
    probabilities: Iterable[Tensor], label: Tensor, class_names: Sequence[str], domain: Tensor, **columns: Any
) -> list[Row]:
    """Sort the voxels of one case into bins by the probability of each class (one versus rest).

    Args:
        probabilities: Probabilities of the classes 1, 2, ..., ``(depth, lateral[, elevation])`` each. They are
            processed one after the other.
        label: Class indices, ``(depth, lateral[, elevation])``.
        class_names: Names of the classes 1, 2, ...
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``. Other voxels are not counted.
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        One row per class and ``bin`` (20 bins of equal width from 0 to 1, numbered from 0), with the number of voxels
        in the bin (``count``), the sum of their probabilities (``probability``), the number of voxels of the class
        (``positive``), and the sum of the squared errors of the probability (``squared_error``). Empty bins have rows
        of zeros.
    """
    return rows_of_sums(calibration_sums(probabilities, label, domain), class_names, **columns)


def calibration_sums(probabilities: Iterable[Tensor], label: Tensor, domain: Tensor) -> NDArray[np.float64]:
    """Sum the voxels of a case, or of a part of it, by the probability of each class (one versus rest).

    Sums are float64, so that counts are exact for volumes with up to 2^53 voxels. Sums of parts can be added.

    Args:
        probabilities: Probabilities of the classes 1, 2, ..., ``(depth, lateral[, elevation])`` each.
        label: Class indices, ``(depth, lateral[, elevation])``.
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``. Other voxels are not counted.

    Returns:
        The sums of :func:`calibration_rows` in the order of ``SUMS``, ``(classes, bins, 4)``.
    """
    sums = []
    for index, probability in enumerate(probabilities, start=1):
        # An additional bin collects voxels that are not insonified. This is much faster than indexing with the domain.
        counts = torch.zeros(BINS + 1, 2, dtype=torch.int64, device=label.device)
        total, squared = torch.zeros(2, BINS + 1, dtype=torch.float64, device=label.device)
        parts = (torch.split(voxels.flatten(), VOXELS_AT_A_TIME) for voxels in (probability, label, domain))
        for predicted, truth, inside in zip(*parts, strict=True):
            predicted, positive = predicted.double(), truth == index
            bins = (predicted * BINS).long().clamp_(0, BINS - 1).masked_fill_(~inside, BINS)
            counts += torch.bincount(2 * bins + positive, minlength=counts.numel()).reshape(counts.shape)
            # On a GPU, bincount with weights is not deterministic.
            total.index_add_(0, bins, predicted)
            squared.index_add_(0, bins, (predicted - positive.double()).square_())
        of_class = (counts.sum(dim=1), total, counts[:, 1], squared)
        sums.append(np.stack([values[:BINS].double().cpu().numpy() for values in of_class], axis=1))
    return np.stack(sums)


def rows_of_sums(sums: NDArray[np.float64], class_names: Sequence[str], **columns: Any) -> list[Row]:
    """Arrange the sums of one case as rows.

    Args:
        sums: Sums of :func:`calibration_sums`, ``(classes, bins, 4)``.
        class_names: Names of the classes 1, 2, ...
        **columns: Further columns with a constant value, such as the case and its patient.

    Returns:
        Rows of :func:`calibration_rows`.
    """
    whole = {"count", "positive"}
    return [
        {
            **columns,
            "class": name,
            "bin": number,
            **{key: int(value) if key in whole else value for key, value in zip(SUMS, values, strict=True)},
        }
        for name, bins in zip(class_names, sums.tolist(), strict=True)
        for number, values in enumerate(bins)
    ]


def expected_calibration_error(count: Numbers, probability_sum: Numbers, positive: Numbers) -> NDArray[np.float64]:
    """Compute the expected calibration error (ECE).

    It is the mean absolute difference between probability and frequency of the bins, weighted by their numbers of
    voxels.

    Args:
        count: Number of voxels in every bin, ``(..., bins)``.
        probability_sum: Sum of their probabilities, ``(..., bins)``.
        positive: Number of these voxels that belong to the class, ``(..., bins)``.

    Returns:
        ECE from 0 to 1, ``(...)``; NaN if there are no voxels.

    References:
        Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    with np.errstate(invalid="ignore"):
        return np.abs(probability_sum - positive).sum(axis=-1) / np.asarray(count.sum(axis=-1), dtype=np.float64)


def average_calibration_error(count: Numbers, probability_sum: Numbers, positive: Numbers) -> NDArray[np.float64]:
    """Compute the average calibration error (ACE).

    It is the mean absolute difference between probability and frequency of the non-empty bins. Intermediate
    probabilities, which are rare and occur near boundaries, have the same weight as the probabilities of the
    background.

    Args:
        count: Number of voxels in every bin, ``(..., bins)``.
        probability_sum: Sum of their probabilities, ``(..., bins)``.
        positive: Number of these voxels that belong to the class, ``(..., bins)``.

    Returns:
        ACE from 0 to 1, ``(...)``; NaN if there are no voxels.

    References:
        Barfoot et al., "Average calibration error: a differentiable loss for improved reliability in image
        segmentation", MICCAI 2024.
    """
    with np.errstate(invalid="ignore"):
        gap = np.abs(probability_sum - positive) / np.maximum(count, 1)
        return gap.sum(axis=-1) / np.asarray((count > 0).sum(axis=-1), dtype=np.float64)


def brier_score(count: Numbers, squared_error_sum: Numbers) -> NDArray[np.float64]:
    """Compute the Brier score of a class (one versus rest): mean squared error of its probability.

    Args:
        count: Number of voxels in every bin, ``(..., bins)``.
        squared_error_sum: Sum of their squared errors, ``(..., bins)``.

    Returns:
        Brier score from 0 to 1, ``(...)``; NaN if there are no voxels.

    References:
        Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950.
    """
    with np.errstate(invalid="ignore"):
        return squared_error_sum.sum(axis=-1) / np.asarray(count.sum(axis=-1), dtype=np.float64)


def chance_calibration_errors(
    count: Numbers, probability_sum: Numbers, draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Simulate ECEs of a perfectly calibrated model, which are above 0 by chance.

    Labels are drawn from the predicted probabilities: the number of positive voxels in a bin is binomial with the mean
    probability of the bin, which replaces the very similar probabilities of its voxels. Voxels are assumed to be
    independent. Since neighbouring voxels are not, the true ECEs by chance are larger.

    Args:
        count: Number of voxels in every bin, ``(..., bins)``.
        probability_sum: Sum of their probabilities, ``(..., bins)``.
        draws: Number of simulations.
        seed: Seed of the simulations.

    Returns:
        ECEs from 0 to 1, ``(draws, ...)``; NaN if there are no voxels.
    """
    mean = np.clip(probability_sum / np.maximum(count, 1), 0, 1)
    positive = np.random.default_rng(seed).binomial(count.astype(np.int64), mean, (draws, *count.shape))
    return expected_calibration_error(count, probability_sum, positive)


def null_calibration_error(
    count: Numbers, probability_sum: Numbers, quantile: float = 0.975, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Compute a quantile of the ECE of a perfectly calibrated model.

    Args:
        count: Number of voxels in every bin, ``(..., bins)``.
        probability_sum: Sum of their probabilities, ``(..., bins)``.
        quantile: Quantile from 0 to 1.
        draws: Number of simulations by :func:`chance_calibration_errors`.
        seed: Seed of the simulations.

    Returns:
        Quantile of the ECE, ``(...)``; NaN if there are no voxels. A lower ECE is compatible with perfect calibration,
        and so may be one that is slightly higher.
    """
    return np.asarray(np.quantile(chance_calibration_errors(count, probability_sum, draws, seed), quantile, axis=0))


def sums_by_bin(rows: pd.DataFrame, by: Sequence[str]) -> tuple[pd.Index, dict[str, Numbers]]:
    """Sum the rows of every group, and arrange the bins in columns.

    Args:
        rows: Long table of :func:`calibration_rows`.
        by: Columns that define the groups, such as case and class.

    Returns:
        Index of the groups, and each sum by its name, ``(groups, bins)``.
    """
    wide = rows.groupby([*by, "bin"], sort=False)[SUMS].sum().unstack("bin", fill_value=0)
    return wide.index, {name: wide[name].to_numpy() for name in SUMS}


def calibration_errors(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Compute the calibration errors of every group.

    Args:
        rows: Long table of :func:`calibration_rows`.
        by: Columns that define the groups, such as case and class.

    Returns:
        Table with one row per group, the groups as its index, and the columns ``ece``, ``ace`` and ``brier``.
    """
    groups, sums = sums_by_bin(rows, by)
    bins = [sums[name] for name in ("count", "probability", "positive")]
    values = {
        "ece": expected_calibration_error(*bins),
        "ace": average_calibration_error(*bins),
        "brier": brier_score(sums["count"], sums["squared_error"]),
    }
    return pd.DataFrame(values, index=groups)


def reliability(calibration: pd.DataFrame) -> pd.DataFrame:
    """Compute the observed frequency of a class as a function of its predicted probability, for reliability diagrams.

    Args:
        calibration: Long table of :func:`calibration_rows`, with the columns ``model`` and ``calibration``.

    Returns:
        Table with one row per model, calibration and non-empty bin, which form its index. Its columns are the number of
        voxels (``count``), their mean ``probability`` and the ``frequency`` of the class, over all classes (one versus
        rest), cases and seeds.
    """
    sums = calibration.groupby(["model", "calibration", "bin"], sort=False)[SUMS].sum().sort_index()
    sums = sums[sums["count"] > 0]
    fractions = sums[["probability", "positive"]].div(sums["count"], axis=0)
    return fractions.rename(columns={"positive": "frequency"}).assign(count=sums["count"])
