"""Gradients of confidence maps with respect to frames, compared with finite differences."""

import numpy as np
import pytest
import torch

from cm_lightning.confidence import ConfidenceMapSolver, find_geometry
from cm_lightning.confidence.engine import choose_engine
from cm_lightning.confidence.problem import Problem
from cm_lightning.data.phantom import Phantom


def solver(formulation="reference", **changes):
    fixed = {"normalise": "fixed", "tolerance": 1e-10, **changes}
    return ConfidenceMapSolver(alpha=0.8, beta=3.0, gamma=0.05, formulation=formulation, **fixed)


@pytest.mark.parametrize("formulation", ["reference", "paper", "realtime"])
def test_gradient_equals_finite_differences(formulation):
    torch.manual_seed(0)
    frames = torch.rand(2, 9, 8, dtype=torch.float64, requires_grad=True)
    domain = torch.rand(9, 8) > 0.2
    source = torch.zeros(9, 8, dtype=torch.bool)
    source[2, 1:7] = True
    maps = solver(formulation)
    assert torch.autograd.gradcheck(maps, frames)
    assert torch.autograd.gradcheck(lambda x: maps(x, domain), frames)
    assert torch.autograd.gradcheck(lambda x: maps(x, domain, source), frames)


def test_gradient_descent_in_single_precision():
    torch.manual_seed(0)
    frames = torch.rand(1, 1, 20, 16, requires_grad=True)
    domain = torch.ones(20, 16, dtype=torch.bool)
    domain[:, :3] = False
    target = 1 - torch.linspace(0, 1, 20)[:, None].expand(1, 1, 20, 16)
    before = None
    for _ in range(40):
        loss = ((solver(tolerance=1e-3)(frames, domain) - target * domain) ** 2).mean()
        before = before or loss.item()
        loss.backward()
        assert frames.grad.dtype == torch.float32
        assert (frames.grad[..., :3] == 0).all()
        with torch.no_grad():
            frames -= 20 * frames.grad
        frames.grad = None
    assert loss.item() < 0.5 * before


def test_settings_without_gradients_raise_errors():
    frames = torch.rand(6, 5, requires_grad=True)
    with pytest.raises(ValueError, match="normalise='fixed'"):
        ConfidenceMapSolver()(frames)
    with pytest.raises(ValueError, match="mode='B'"):
        ConfidenceMapSolver(normalise="fixed", mode="RF")(frames)
    with torch.no_grad():
        assert not ConfidenceMapSolver()(frames).requires_grad


def test_gradient_is_zero_outside_a_fan():
    volume = Phantom(size=(48, 40, 2), spacing=(1.2, 1.6, 1.2), probe="convex").simulate(0)
    frames = torch.from_numpy(np.moveaxis(volume.image, 2, 0) / 255.0).requires_grad_()
    geometry = find_geometry(frames, "convex", aspect=1.6 / 1.2)
    upstream = torch.randn(frames.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = []
    masks = geometry.masks(frames)
    for domain, source, sink in (geometry.solver_masks(frames), (masks.domain, masks.source, masks.sink)):
        maps = solver()(frames, domain, source, sink)
        gradients += torch.autograd.grad(maps, frames, upstream)
    assert torch.equal(*gradients)
    domain = torch.from_numpy(masks.domain.copy())
    assert (gradients[0][domain] != 0).float().mean() > 0.5
    assert (gradients[0][~domain] == 0).all()


def test_gradient_of_the_engine_equals_autograd():
    torch.manual_seed(0)
    frames = torch.rand(2, 1, 14, 11, requires_grad=True)
    upstream = torch.randn(frames.shape)
    solver(tolerance=1e-6)(frames).backward(upstream)
    problem = Problem(solver(tolerance=1e-6), frames.detach(), None, None, None)
    exact = Problem(solver(tolerance=1e-6), frames.detach().double(), None, None, None)
    engine = choose_engine(problem)
    maps, _ = engine.solve(exact, certify=False)
    gradient = engine.gradient(problem, maps, upstream.double())
    assert gradient.dtype == torch.float64
    torch.testing.assert_close(gradient.reshape(frames.shape).float(), frames.grad, rtol=0, atol=0)
