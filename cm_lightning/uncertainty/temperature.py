"""Temperature scaling: one number that calibrates the probabilities of a network."""

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

# Lowest and highest temperature.
TEMPERATURES = (0.01, 100.0)
# Number of insonified voxels per case: enough to fit one number, and few enough to gather from all processes.
VOXELS_PER_CASE = 20_000


def draw_voxels(logits: Tensor, label: Tensor, domain: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw insonified voxels of one case without replacement.

    Args:
        logits: Logits of all classes, ``(C, depth, lateral[, elevation])``.
        label: Class indices, ``(depth, lateral[, elevation])``.
        domain: Insonified voxels, bool, ``(depth, lateral[, elevation])``.
        seed: Seed of the random choice of voxels. By default, it is the same in every epoch and in every process.

    Returns:
        Logits, float32, ``(voxels, C)``, and class indices, ``(voxels,)``, of up to 20 000 voxels, on the CPU.
    """
    inside = domain.flatten().nonzero()[:, 0]
    if len(inside) > VOXELS_PER_CASE:
        chosen = np.random.default_rng(seed).choice(len(inside), VOXELS_PER_CASE, replace=False)
        inside = inside[torch.from_numpy(chosen).to(inside.device)]
    return logits.flatten(1)[:, inside].T.float().cpu(), label.flatten()[inside].cpu()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature that maximises the likelihood of the labels when the logits are divided by it.

    Args:
        logits: Logits, ``(voxels, C)``.
        labels: Class indices, ``(voxels,)``.

    Returns:
        Temperature from 0.01 to 100 with the lowest mean negative log-likelihood of the labels. It is above 1 for an
        overconfident network, and 1 if there are no voxels.

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017, equation 9.
    """
    if not len(labels):
        return 1.0
    logits, labels = logits.double(), labels.long()

    def negative_log_likelihood(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = map(math.log, TEMPERATURES)
    # There is only one minimum, since the negative log-likelihood is a convex function of 1 / temperature.
    optimum = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return math.exp(optimum.x)
