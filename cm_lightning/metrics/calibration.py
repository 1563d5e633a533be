"""Whether probabilities mean what they say: the probability of a class against how often it is there."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 20  # of equal width over [0, 1]; as many as MONAI takes
SUMS = ["count", "probability", "positive", "squared_error"]
VOXELS_AT_A_TIME = 2**18  # what fits a cache; as int64 and float64, all voxels of a volume would take gigabytes

Row = dict[str, Any]
Numbers = NDArray[np.float64] | NDArray[np.int64]


def calibration_rows(
    probabilities: Iterable[Tensor], label: Tensor, class_names: Sequence[str], domain: Tensor, **about: Any
) -> list[Row]:
    """Sort the voxels of every class, one against the rest, by their probability and sum what calibration needs.

    Counts are int64 and sums float64, so that nothing is lost on volumes above 2^24 voxels.

    Args:
        probabilities: Probability of the classes 1, 2, ..., each ``(depth, lateral[, elevation])``; they are taken one
            at a time.
        label: Class indices of the same shape.
        class_names: Names of the classes 1, 2, ...
        domain: Which voxels are insonified, bool; the others are not counted.
        **about: Columns that every row carries, such as the case and its patient.

    Returns:
        A row per class and ``bin`` (20 of equal width over [0, 1], numbered from 0): the ``count`` of its voxels, the
        sum of their ``probability``, how many are of the class (``positive``), and the sum of the ``squared_error`` of
        the probability. Bins that hold no voxel have rows of zeros.
    """
    rows = []
    for index, (name, probability) in enumerate(zip(class_names, probabilities, strict=True), start=1):
        # A further bin takes what is not insonified: much faster than to pick what is.
        counts = torch.zeros(BINS + 1, 2, dtype=torch.int64, device=label.device)
        total, squared = torch.zeros(2, BINS + 1, dtype=torch.float64, device=label.device)
        parts = (torch.split(voxels.flatten(), VOXELS_AT_A_TIME) for voxels in (probability, label, domain))
        for found, truth, inside in zip(*parts, strict=True):
            stated, there = found.double(), truth == index
            bins = (stated * BINS).long().clamp_(0, BINS - 1).masked_fill_(~inside, BINS)
            counts += torch.bincount(2 * bins + there, minlength=counts.numel()).reshape(counts.shape)
            # Not a weighted count: on a GPU, torch has no deterministic one.
            total.index_add_(0, bins, stated)
            squared.index_add_(0, bins, (stated - there.double()).square_())
        measured = (counts.sum(dim=1), total, counts[:, 1], squared)
        sums = dict(zip(SUMS, (of_bins.tolist() for of_bins in measured), strict=True))
        rows += [{**about, "class": name, "bin": b, **{key: sums[key][b] for key in SUMS}} for b in range(BINS)]
    return rows


def expected_calibration_error(count: Numbers, probability: Numbers, positive: Numbers) -> NDArray[np.float64]:
    """Average the distance between stated probability and frequency over voxels: the ECE (Naeini et al. 2015).

    Args:
        count: Voxels of every bin, ``(..., bins)``.
        probability: Sum of their probabilities.
        positive: How many of them are of the class.

    Returns:
        ``(...)``, in [0, 1]; NaN where there is no voxel.
    """
    with np.errstate(invalid="ignore"):
        return np.abs(probability - positive).sum(axis=-1) / np.asarray(count.sum(axis=-1), dtype=np.float64)


def average_calibration_error(count: Numbers, probability: Numbers, positive: Numbers) -> NDArray[np.float64]:
    """Average the distance between stated probability and frequency over the bins that hold voxels: the ACE.

    Rare probabilities, those near a boundary, weigh as much as the background's (Barfoot et al. 2025).

    Args:
        count: Voxels of every bin, ``(..., bins)``.
        probability: Sum of their probabilities.
        positive: How many of them are of the class.

    Returns:
        ``(...)``, in [0, 1]; NaN where there is no voxel.
    """
    with np.errstate(invalid="ignore"):
        gap = np.abs(probability - positive) / np.maximum(count, 1)  # 0 in an empty bin
        return gap.sum(axis=-1) / np.asarray((count > 0).sum(axis=-1), dtype=np.float64)


def brier_score(count: Numbers, squared_error: Numbers) -> NDArray[np.float64]:
    """Average the squared error of the probability of a class, one against the rest (Brier 1950).

    Args:
        count: Voxels of every bin, ``(..., bins)``.
        squared_error: Sum of their squared errors.

    Returns:
        ``(...)``, in [0, 1]; NaN where there is no voxel.
    """
    with np.errstate(invalid="ignore"):
        return squared_error.sum(axis=-1) / np.asarray(count.sum(axis=-1), dtype=np.float64)


def chance_calibration_errors(count: Numbers, probability: Numbers, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw ECEs of a perfectly calibrated model: by chance alone they are not 0.

    Labels are drawn from the stated probabilities, voxel by voxel: binomial in every bin, with the bin's mean
    probability, which in narrow bins is as good as every voxel's own. Neighbouring voxels are taken for independent,
    which they are not: chance's true ECEs are larger.

    Args:
        count: Voxels of every bin, ``(..., bins)``.
        probability: Sum of their probabilities.
        draws: How often labels are drawn.
        seed: Of the draws.

    Returns:
        ``(draws, ...)``; NaN where there is no voxel.
    """
    mean = np.clip(probability / np.maximum(count, 1), 0, 1)
    drawn = np.random.default_rng(seed).binomial(count.astype(np.int64), mean, (draws, *count.shape))
    return expected_calibration_error(count, probability, drawn)


def null_calibration_error(
    count: Numbers, probability: Numbers, quantile: float = 0.975, draws: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Give the ECE that a perfectly calibrated model would hardly exceed.

    Args:
        count: Voxels of every bin, ``(..., bins)``.
        probability: Sum of their probabilities.
        quantile: Which quantile of the ECE.
        draws: How often labels are drawn, as by :func:`chance_calibration_errors`.
        seed: Of the draws.

    Returns:
        ``(...)``; NaN where there is no voxel. An ECE below it is chance's, one just above may be.
    """
    return np.asarray(np.quantile(chance_calibration_errors(count, probability, draws, seed), quantile, axis=0))


def sums_by_bin(rows: pd.DataFrame, by: Sequence[str]) -> tuple[pd.Index, dict[str, Numbers]]:
    """Add up rows and lay out their bins side by side.

    Args:
        rows: Long table of :func:`calibration_rows`.
        by: Columns whose values are kept apart, such as case and class.

    Returns:
        What is kept apart, and every sum, ``(groups, bins)``.
    """
    wide = rows.groupby([*by, "bin"], sort=False)[SUMS].sum().unstack("bin", fill_value=0)
    return wide.index, {name: wide[name].to_numpy() for name in SUMS}


def calibration_errors(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Measure calibration.

    Args:
        rows: Long table of :func:`calibration_rows`.
        by: Columns whose values are kept apart, such as case and class.

    Returns:
        A row per group, indexed by it, with ``ece``, ``ace`` and ``brier``.
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
    """Find how often what a model states with some probability is so.

    Args:
        calibration: Long table of :func:`calibration_rows`, with the columns ``model`` and ``calibration``.

    Returns:
        A row per model, calibration and bin that holds voxels, indexed by them: the ``count`` of voxels of all classes,
        scans and seeds, one class against the rest, their mean ``probability`` and the ``frequency`` of the class.
    """
    sums = calibration.groupby(["model", "calibration", "bin"], sort=False)[SUMS].sum().sort_index()
    sums = sums[sums["count"] > 0]
    shares = sums[["probability", "positive"]].div(sums["count"], axis=0)
    return shares.rename(columns={"positive": "frequency"}).assign(count=sums["count"])
