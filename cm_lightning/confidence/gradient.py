"""Derivatives of confidence maps by the intensities of their frames."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.cpu.solver import ThreadSolvers, run_on_all_cores
from cm_lightning.confidence.network import weight_gradients

if TYPE_CHECKING:
    from cm_lightning.confidence.solver import ConfidenceMapSolver


def differentiable_maps(
    solver: "ConfidenceMapSolver", frames: torch.Tensor, domain: Any = None, source: Any = None, sink: Any = None
) -> torch.Tensor:
    """Compute maps through which gradients flow back to the frames.

    Args:
        solver: Computes them; with ``normalise="fixed"`` and ``mode="B"``.
        frames: As in the solver's call.
        domain: The same.
        source: The same.
        sink: The same.

    Returns:
        The maps.

    Raises:
        ValueError: The solver rescales by each frame's extremes, where a map has no derivative, or takes an envelope.
    """
    if solver.normalise != "fixed":
        raise ValueError(
            "Gradients of a confidence map need normalise='fixed': with 'frame' every pixel depends on the frame's "
            "minimum, maximum and largest step."
        )
    if solver.mode != "B":
        raise ValueError("Gradients of a confidence map need mode='B'; take the envelope of RF lines beforehand.")
    maps: torch.Tensor = _ConfidenceMaps.apply(frames, solver, domain, source, sink)  # type: ignore[no-untyped-call]
    return maps


class _ConfidenceMaps(torch.autograd.Function):
    """Maps, and the adjoint of their linear system.

    With ``A x = b`` and ``A l = dL/dx`` the derivative by an edge's weight is ``-(l_i - l_j) (x_i - x_j)``. The system
    is set up and eliminated again on the way back, which takes as long as the way forth and spares the memory of every
    frame's factor in between.
    """

    @staticmethod
    def forward(
        context: Any, frames: torch.Tensor, solver: "ConfidenceMapSolver", domain: Any, source: Any, sink: Any
    ) -> torch.Tensor:
        """Solve in float64: neighbours differ by little, and the way back lives on their differences."""
        maps, _ = solver.solve(frames.detach().double(), domain, source, sink)
        context.save_for_backward(frames, maps)
        context.arguments = (solver, domain, source, sink)
        return maps if frames.dtype == torch.float64 else maps.float()

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        """Carry the gradient from the maps to the frames."""
        from cm_lightning.confidence.solver import Problem

        frames, maps = context.saved_tensors
        solver, *masks = context.arguments
        problem = Problem(solver, frames.detach(), *masks)
        if problem.backend == "cuda":
            from cm_lightning.confidence.cuda import gradient_on_gpu

            back = gradient_on_gpu(problem, maps, gradient.double()).reshape(gradient.shape)
            return back.to(frames.dtype), None, None, None, None
        upstream = to_numpy(gradient.double()).reshape(problem.shape)
        solved = to_numpy(maps).reshape(problem.shape)
        result = np.zeros(problem.shape)

        solvers = ThreadSolvers(solver.method, solver.tolerance, proven=False)

        def differentiate(index: int) -> None:
            system = problem.system(index)
            if system is None:
                return
            part = (index, system.rows, system.columns)
            right = upstream[part] * system.network.unknown
            adjoint = solvers.of(system.values.shape)(system.network, right)
            by_weight = weight_gradients(adjoint.values, solved[part])
            domain = system.boundary.domain[0]
            result[part] = problem.weight_function.gradient(system.frame, domain, by_weight)

        run_on_all_cores(differentiate, len(result), solver.max_batch)
        back = torch.from_numpy(result.reshape(gradient.shape)).to(frames.device, frames.dtype)
        return back, None, None, None, None
