"""Monte Carlo dropout: masks, statistics of samples, batching and windows."""

import math

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.blocks import Convolution
from torch import nn

from cm_lightning.models import create_network
from cm_lightning.uncertainty import MCDropout, sample_dropout, seeded_dropout
from cm_lightning.uncertainty.mc_dropout import entropy

NETWORKS = {
    "UNet": {},
    "AttentionUnet": {},
    "UNETR": {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4, "feature_size": 8},
}


def small_network():
    torch.manual_seed(0)
    return create_network("UNet", 2, 1, 3, channels=(4, 8), strides=(2,), dropout=0.3).eval()


def generators(number):
    return [torch.Generator().manual_seed(i) for i in range(number)]


@pytest.mark.parametrize("name", NETWORKS)
def test_only_dropout_is_active_and_buffers_do_not_change(name):
    network = create_network(name, 2, 1, 3, (32, 32), **NETWORKS[name]).eval()
    before = {key: value.clone() for key, value in network.named_buffers()}
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        plain = network(image)
        with seeded_dropout(network, generators(2)):
            first, second = network(image.expand(2, 1, 32, 32))
        after = network(image)
    assert not torch.equal(first, second)
    assert torch.equal(plain, after)
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_masks_have_the_dropout_rate_and_keep_the_mean(rate):
    values = torch.full((2, 3, 400, 101), 2.0)  # the size of an item is not a multiple of four
    with seeded_dropout(layer := nn.Dropout(rate).eval(), generators(2)):
        dropped = layer(values)
    for item in dropped:
        assert (item == 0).float().mean().item() == pytest.approx(rate, abs=0.006)  # four SD of the share
    if rate < 1:
        assert dropped.unique().tolist() == pytest.approx([0.0, 2 / (1 - rate)], rel=1e-4)
    assert (dropped[0] != dropped[1]).any() == (rate < 1)


def test_channel_dropout_drops_entire_channels():
    with seeded_dropout(layer := nn.Dropout3d(0.5).eval(), generators(1)):
        dropped = layer(torch.ones(1, 64, 3, 4, 5))
    assert {len(channel.unique()) for channel in dropped[0]} == {1}
    assert len(dropped.unique()) == 2


def test_statistics_of_a_known_distribution():
    network = nn.Dropout(0.25).eval()
    logit = torch.log(torch.tensor(3.0)) * 0.75  # kept with probability 0.75 and scaled to log 3: 3/4, otherwise 1/2
    inputs = torch.stack([torch.zeros(1, 1), logit.reshape(1, 1)], dim=1).expand(1, 2, 2000)
    result = sample_dropout(network, network, inputs, "case", MCDropout(50))
    torch.testing.assert_close(result.mean.sum(dim=0), torch.ones(2000))
    assert result.mean[1].mean().item() == pytest.approx(0.75 * 0.75 + 0.25 * 0.5, abs=0.005)
    between = 0.75 * 0.25 * 0.25**2  # variance of the two values 3/4 and 1/2
    assert result.variance[1].mean().item() == pytest.approx(between, rel=0.05)
    one_sample = 0.75 * (math.log(4) - 0.75 * math.log(3)) + 0.25 * math.log(2)
    assert result.expected_entropy.mean().item() == pytest.approx(one_sample, abs=0.001)


def test_statistics_equal_those_of_the_stacked_samples():
    network, image = small_network(), torch.rand(1, 1, 24, 20)
    logits = []

    def run(inputs):
        logits.append(network(inputs))
        return logits[-1]

    with torch.no_grad():
        settings, seen = MCDropout(100, batch_size=7, segmentations=9), []
        result = sample_dropout(network, run, image, "case", settings, each=lambda sample: seen.append(sample.clone()))
    stacked = torch.cat(logits).double().softmax(dim=1)
    close = {"atol": 1e-6, "rtol": 0}
    assert len(stacked) == 100
    torch.testing.assert_close(torch.stack(seen).double(), stacked, **close)
    mean = stacked.mean(dim=0)
    torch.testing.assert_close(result.mean.double(), mean, **close)
    torch.testing.assert_close(result.variance.double(), stacked.var(dim=0, correction=0), **close)
    expected_entropy = -(stacked * stacked.log()).sum(dim=1).mean(dim=0)
    predictive_entropy = -(mean * mean.log()).sum(dim=0)
    torch.testing.assert_close(result.expected_entropy.double(), expected_entropy, **close)
    torch.testing.assert_close(result.entropy.double(), predictive_entropy, **close)
    mutual_information = predictive_entropy - expected_entropy
    torch.testing.assert_close(result.mutual_information.double(), mutual_information, **close)
    assert torch.equal(result.votes, torch.stack([(stacked.argmax(dim=1) == c).sum(dim=0) for c in range(3)]).float())
    plausibility = torch.stack([mean.log().gather(0, s[None]).mean() for s in stacked[:9].argmax(dim=1)])
    torch.testing.assert_close(result.plausibility.double(), plausibility, **close)
    torch.testing.assert_close(result.kept.double(), stacked[:9], **close)


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_depend_on_case_and_seed_but_not_on_batch_size(name):
    torch.manual_seed(0)
    network = create_network(name, 2, 1, 3, (32, 32), **NETWORKS[name]).eval()
    image = torch.rand(1, 1, 32, 32)

    def run(case="a", **settings):
        with torch.no_grad():
            return sample_dropout(network, network, image, case, MCDropout(4, segmentations=2, **settings))

    single, batched = run(batch_size=1), run(batch_size=3)
    for quantity in ("mean", "variance", "expected_entropy", "kept"):
        torch.testing.assert_close(getattr(single, quantity), getattr(batched, quantity), atol=1e-6, rtol=1e-5)
    torch.manual_seed(7)
    assert torch.equal(run().mean, single.mean)
    assert not torch.equal(run("b").mean, single.mean)
    assert not torch.equal(run(seed=1).mean, single.mean)


def test_variance_does_not_depend_on_the_number_of_overlapping_windows():
    """If samples were blended before computing their variance, the SD would be halved where four windows overlap."""
    torch.manual_seed(0)
    network = nn.Sequential(Convolution(2, 1, 8, dropout=0.5), nn.Conv2d(8, 2, 1)).eval()
    image = torch.ones(1, 1, 40, 40)
    window = SlidingWindowInferer((16, 16), overlap=0.5, mode="constant")
    with torch.no_grad():
        result = sample_dropout(network, network, image, "case", MCDropout(120, batch_size=40), window)
    spread = result.variance[0].sqrt()
    one_window, four_windows = spread[2:7, 2:7].mean().item(), spread[17:23, 17:23].mean().item()
    assert four_windows == pytest.approx(one_window, rel=0.1)


def test_entropy_of_certain_and_uniform_probabilities():
    probabilities = torch.tensor([[[1.0, 0.25], [0.0, 0.25], [0.0, 0.25], [0.0, 0.25]]])
    torch.testing.assert_close(entropy(probabilities), torch.tensor([[0.0, math.log(4)]]))


def test_invalid_networks_and_settings_raise_errors():
    network = create_network("UNet", 2, 1, 3, dropout=0.0)
    with pytest.raises(ValueError, match="MC dropout needs a network with dropout, but all dropout rates"):
        sample_dropout(network, network, torch.rand(1, 1, 16, 16), "case", MCDropout(5))
    with pytest.raises(ValueError, match="needs samples of at least 2"):
        MCDropout(1)
    with pytest.raises(ValueError, match="segmentations from 0 to samples; found 5, 1 and 6"):
        MCDropout(5, segmentations=6)
    odd = nn.AlphaDropout(0.5).eval()
    with (
        pytest.raises(ValueError, match="does not support AlphaDropout"),
        seeded_dropout(odd, generators(1)),
    ):
        odd(torch.rand(1, 2, 3))
