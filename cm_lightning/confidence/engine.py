"""The two engines that compute maps, behind one interface."""

from typing import Any, Protocol

import torch

from cm_lightning.confidence import cpu
from cm_lightning.confidence.problem import Problem, SolveInfo


class Engine(Protocol):
    """What computes maps and their gradients: :mod:`cm_lightning.confidence.cpu` or ``cuda``."""

    def solve(self, problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
        """Compute the maps of a call.

        Args:
            problem: The input.
            certify: Whether to prove a bound on every map's error.

        Returns:
            The maps, of the frames' shape, kind and device, and what there is to know about them.

        Raises:
            ValueError: A frame holds NaN or infinity.
        """

    def gradient(self, problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
        """Carry a gradient from maps to frames.

        Args:
            problem: The input of the call; its frames are a tensor.
            maps: Its result in float64, of the frames' number of pixels and on their device.
            upstream: Derivatives of something by the maps, the same.

        Returns:
            Its derivatives by the frames, float64, ``(frames, depth, lateral)``, on their device.
        """


def choose_engine(problem: Problem) -> Engine:
    """Choose the engine of a problem.

    Args:
        problem: The input of a call, which knows where to compute.

    Returns:
        The engine.
    """
    if problem.backend == "cuda":
        # Only those with a GPU pay for its tables and wait for its import.
        from cm_lightning.confidence import cuda

        return cuda
    return cpu
