"""Gradients of confidence maps with respect to the intensities of their frames."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.problem import Problem, SolverParameters


def differentiable_maps(
    parameters: SolverParameters, frames: torch.Tensor, domain: Any = None, source: Any = None, sink: Any = None
) -> torch.Tensor:
    """Compute confidence maps that support gradients with respect to the frames.

    Args:
        parameters: Parameters of the solver, with ``normalise="fixed"`` and ``mode="B"``.
        frames: Frames, ``(..., depth, lateral)``; see :class:`cm_lightning.confidence.ConfidenceMapSolver`.
        domain: Insonified pixels, broadcastable to ``frames``, or None.
        source: Source pixels, broadcastable to ``frames``, or None.
        sink: Sink pixels, broadcastable to ``frames``, or None.

    Returns:
        Confidence maps, ``(..., depth, lateral)``.

    Raises:
        ValueError: ``normalise`` or ``mode`` has another value.
    """
    if parameters.normalise != "fixed":
        raise ValueError(
            "Gradients of a confidence map need normalise='fixed', because with 'frame' all pixels depend on the "
            "minimum, maximum and largest step of the frame."
        )
    if parameters.mode != "B":
        raise ValueError("Gradients of a confidence map need mode='B'; compute the envelope of RF lines beforehand.")
    maps: torch.Tensor = _ConfidenceMaps.apply(  # type: ignore[no-untyped-call]
        frames, parameters, domain, source, sink
    )
    return maps


class _ConfidenceMaps(torch.autograd.Function):
    """Confidence maps with gradients by the adjoint of their linear system.

    With ``A x = b`` and ``A l = dL/dx``, the derivative with respect to the weight of an edge is ``-(l_i - l_j) (x_i -
    x_j)``. The backward pass factorises the system again. It takes as long as the forward pass, but the factors of all
    frames do not have to be stored.
    """

    @staticmethod
    def forward(
        context: Any, frames: torch.Tensor, parameters: SolverParameters, domain: Any, source: Any, sink: Any
    ) -> torch.Tensor:
        """Solve in float64, since the gradient depends on the small differences between neighbouring pixels."""
        problem = Problem(parameters, frames.detach().double(), domain, source, sink)
        maps: torch.Tensor
        maps, _ = choose_engine(problem).solve(problem, certify=False)
        context.save_for_backward(frames, maps)
        context.arguments = (parameters, domain, source, sink)
        return maps if frames.dtype == torch.float64 else maps.float()

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """Propagate the gradient from the maps to the frames."""
        frames, maps = context.saved_tensors
        parameters, *masks = context.arguments
        problem = Problem(parameters, frames.detach(), *masks)
        gradient = choose_engine(problem).gradient(problem, maps, upstream.double())
        return gradient.reshape(frames.shape).to(frames.dtype), None, None, None, None
