"""MC dropout."""

import pytest
import torch
from torch import nn

from cm_lightning.models import create_network
from cm_lightning.uncertainty import active_dropout, mc_dropout_probabilities


def test_only_dropout_is_active_and_no_buffer_moves():
    network = create_network("UNet", 2, 1, 3).eval()
    before = {name: value.clone() for name, value in network.named_buffers()}
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        plain = network(image)
        with active_dropout(network):
            first, second = network(image), network(image)
        after = network(image)
    assert not torch.equal(first, second)
    assert torch.equal(plain, after)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert not any(module.training for module in network.modules())


def test_mean_of_a_known_distribution():
    torch.manual_seed(0)
    network = nn.Dropout(0.25).eval()
    logit = torch.log(torch.tensor(3.0)) * 0.75  # kept with 0.75 and then scaled to log 3: probability 3/4, else 1/2
    inputs = torch.stack([torch.zeros(1, 1), logit.reshape(1, 1)], dim=1).expand(1, 2, 2000)
    with torch.no_grad():
        mean = mc_dropout_probabilities(network, lambda: network(inputs), samples=50)
    torch.testing.assert_close(mean.sum(dim=1), torch.ones(1, 2000))
    assert mean[0, 1].mean().item() == pytest.approx(0.75 * 0.75 + 0.25 * 0.5, abs=0.005)


def test_nothing_to_vary_is_refused():
    with pytest.raises(ValueError, match="MC dropout varies a network by its dropout, and this one has none above 0"):
        mc_dropout_probabilities(create_network("UNet", 2, 1, 3, dropout=0.0), torch.rand, 5)
