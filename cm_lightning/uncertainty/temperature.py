"""Temperature scaling (Guo et al. 2017): one number that brings a network's confidence to its accuracy."""

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

TEMPERATURES = (0.01, 100.0)
VOXELS_PER_CASE = 20_000  # of those that are insonified; enough for one number, and small enough to gather


def draw_voxels(logits: Tensor, label: Tensor, domain: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw voxels of one case without replacement.

    Args:
        logits: Of the classes, ``(C, depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        domain: Which voxels are insonified, bool, of that shape.
        seed: Of the draw, which is the same in every epoch and on every process.

    Returns:
        Logits ``(voxels, C)``, float32, and labels ``(voxels,)`` of at most 20 000 insonified voxels, on the CPU.
    """
    inside = domain.flatten().nonzero()[:, 0]
    if len(inside) > VOXELS_PER_CASE:
        chosen = np.random.default_rng(seed).choice(len(inside), VOXELS_PER_CASE, replace=False)
        inside = inside[torch.from_numpy(chosen).to(inside.device)]
    return logits.flatten(1)[:, inside].T.float().cpu(), label.flatten()[inside].cpu()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature that, dividing the logits, makes the labels most likely.

    Args:
        logits: ``(voxels, C)``.
        labels: Class indices, ``(voxels,)``.

    Returns:
        The temperature, between 0.01 and 100, at which the mean negative log-likelihood of the labels is lowest; above
        1 for an over-confident network. 1 where there is no voxel.
    """
    if not len(labels):
        return 1.0
    logits, labels = logits.double(), labels.long()

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = map(math.log, TEMPERATURES)
    # The likelihood has one optimum: it is concave in 1 / temperature.
    optimum = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return math.exp(optimum.x)
