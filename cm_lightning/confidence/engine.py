"""Common interface of the CPU and GPU engines that compute confidence maps."""

from typing import Any, Protocol

import torch

from cm_lightning.confidence.problem import Problem, SolveInfo


class Engine(Protocol):
    """Interface of the modules :mod:`cm_lightning.confidence.cpu` and :mod:`cm_lightning.confidence.cuda`."""

    def solve(self, problem: Problem, certify: bool) -> tuple[Any, SolveInfo]:
        """Compute confidence maps.

        Args:
            problem: Checked input of a call of the solver.
            certify: Whether to compute proven error bounds.

        Returns:
            Confidence maps with the shape, type and device of the frames, and information about the solution.

        Raises:
            ValueError: A frame contains NaN or infinity.
        """

    def gradient(self, problem: Problem, maps: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
        """Propagate a gradient from maps to frames.

        Args:
            problem: Checked input of a call of the solver, whose frames are a tensor.
            maps: Confidence maps, float64, ``(..., depth, lateral)``, on the device of the frames.
            upstream: Gradient with respect to the maps, float64, ``(..., depth, lateral)``.

        Returns:
            Gradient with respect to the frames, float64, ``(frames, depth, lateral)``, on the same device.
        """


def choose_engine(problem: Problem) -> Engine:
    """Return the engine for the backend of a problem.

    Args:
        problem: Checked input of a call of the solver.

    Returns:
        The engine.
    """
    # Both imports take time, and only one of them is needed.
    if problem.backend == "cuda":
        from cm_lightning.confidence import cuda

        return cuda
    from cm_lightning.confidence import cpu

    return cpu
