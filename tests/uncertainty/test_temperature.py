"""Temperature scaling: known temperatures are recovered."""

import pytest
import torch

from cm_lightning.uncertainty import draw_voxels, fit_temperature
from cm_lightning.uncertainty.temperature import VOXELS_PER_CASE


@pytest.fixture
def calibrated():
    """Return logits, and labels that are drawn from the corresponding probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 4, generator=generator)
    return logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


def test_known_temperatures_are_recovered(calibrated):
    logits, labels = calibrated
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(1, abs=0.02)
    for factor in (3.0, 0.2):
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fitted, rel=1e-3)


def test_temperatures_of_perfect_and_wrong_predictions_are_bounded(calibrated):
    logits, _ = calibrated
    assert fit_temperature(logits, logits.argmax(dim=1)) == pytest.approx(0.01, rel=1e-3)  # always correct
    assert fit_temperature(logits, logits.argmin(dim=1)) == pytest.approx(100, rel=1e-3)  # always wrong
    assert fit_temperature(logits[:0], logits[:0].argmax(dim=1)) == 1


def test_voxels_are_drawn_from_the_domain_without_replacement():
    shape = (200, 210)
    logits = torch.stack([torch.arange(200 * 210).reshape(shape), torch.zeros(shape)]).float()
    label = (logits[0].long() % 7).to(torch.uint8)
    domain = torch.ones(shape, dtype=torch.bool)
    domain[:, 200:] = False
    voxels, truth = draw_voxels(logits, label, domain)
    numbers = voxels[:, 0].long()
    assert voxels.shape == (VOXELS_PER_CASE, 2)
    assert len(set(numbers.tolist())) == VOXELS_PER_CASE
    assert domain.flatten()[numbers].all()
    assert torch.equal(truth.long(), numbers % 7)
    repeated, _ = draw_voxels(logits, label, domain)
    assert torch.equal(voxels, repeated)
    few, _ = draw_voxels(logits, label, domain & (logits[0] < 50))
    assert few[:, 0].tolist() == list(range(50))
