"""Derivatives of confidence maps by the intensities of their frames."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.problem import Problem, SolverParameters


def differentiable_maps(
    parameters: SolverParameters, frames: torch.Tensor, domain: Any = None, source: Any = None, sink: Any = None
) -> torch.Tensor:
    """Compute maps through which gradients flow back to the frames.

    Args:
        parameters: How to compute them; with ``normalise="fixed"`` and ``mode="B"``.
        frames: As in the solver's call.
        domain: The same.
        source: The same.
        sink: The same.

    Returns:
        The maps.

    Raises:
        ValueError: The solver rescales by each frame's extremes, where a map has no derivative, or takes an envelope.
    """
    if parameters.normalise != "fixed":
        raise ValueError(
            "Gradients of a confidence map need normalise='fixed': with 'frame' every pixel depends on the frame's "
            "minimum, maximum and largest step."
        )
    if parameters.mode != "B":
        raise ValueError("Gradients of a confidence map need mode='B'; take the envelope of RF lines beforehand.")
    maps: torch.Tensor = _ConfidenceMaps.apply(  # type: ignore[no-untyped-call]
        frames, parameters, domain, source, sink
    )
    return maps


class _ConfidenceMaps(torch.autograd.Function):
    """Maps, and the adjoint of their linear system.

    With ``A x = b`` and ``A l = dL/dx`` the derivative by an edge's weight is ``-(l_i - l_j) (x_i - x_j)``. The system
    is set up and eliminated again on the way back, which takes as long as the way forth and spares the memory of every
    frame's factor in between.
    """

    @staticmethod
    def forward(
        context: Any, frames: torch.Tensor, parameters: SolverParameters, domain: Any, source: Any, sink: Any
    ) -> torch.Tensor:
        """Solve in float64: neighbours differ by little, and the way back lives on their differences."""
        problem = Problem(parameters, frames.detach().double(), domain, source, sink)
        maps: torch.Tensor
        maps, _ = choose_engine(problem).solve(problem, certify=False)
        context.save_for_backward(frames, maps)
        context.arguments = (parameters, domain, source, sink)
        return maps if frames.dtype == torch.float64 else maps.float()

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """Carry the gradient from the maps to the frames."""
        frames, maps = context.saved_tensors
        parameters, *masks = context.arguments
        problem = Problem(parameters, frames.detach(), *masks)
        gradient = choose_engine(problem).gradient(problem, maps, upstream.double())
        return gradient.reshape(frames.shape).to(frames.dtype), None, None, None, None
