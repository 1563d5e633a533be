"""Segmentation networks: sizes, options and supported inputs."""

import re

import pytest
import torch

from cm_lightning.models import count_parameters, create_network, dropout_layers
from cm_lightning.models.networks import check_size, pad_to_fit, use_channels_last

NAMES = ("UNet", "AttentionUnet", "DynUNet", "UNETR")
SMALL = {"UNETR": {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "feature_size": 4}}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_output_shape_and_gradients_of_all_parameters(name, dims):
    size = (16, 32, 16)[:dims]
    network = create_network(name, dims, 2, 4, size, **SMALL.get(name, {}))
    outputs = network(torch.rand(2, 2, *size))
    assert outputs.shape == (2, 4, *size)
    outputs.square().sum().backward()
    # UNETR has parameters without gradients. They are frozen, because distributed training fails otherwise.
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert any(not p.requires_grad for p in network.parameters()) == (name == "UNETR")
    assert dropout_layers(network)


@pytest.mark.parametrize(
    ("name", "millions"),
    # The UNet has the size of MONAI's DeepAtlas tutorial. The authors of UNETR report 92.6 million parameters.
    [("UNet", 0.435), ("AttentionUnet", 0.367), ("UNETR", 92.8)],
)
def test_default_numbers_of_parameters(name, millions):
    network = create_network(name, 3, 1, 4, (96, 96, 96))
    assert count_parameters(network) == pytest.approx(millions * 1e6, rel=2e-3)


def test_unetr_sizes_and_dropout_can_be_set():
    network = create_network("UNETR", 2, 1, 2, (32, 32), **SMALL["UNETR"], dropout_rate=0.0)
    assert not dropout_layers(network)
    assert network.hidden_size == 24


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "UNet",
            (20, 16, 16),
            r"^UNet with .* multiples of 8 and at least 16, found [20, 16, 16]; [16, 16, 16]",
        ),
        ("UNet", (8, 16, 16), r"found [8, 16, 16]; [16, 16, 16] would be valid"),
        ("DynUNet", (20, 16, 16), r"^DynUNet .* multiples of 8 and at least 16, found [20, 16, 16]; [16, 16, 16]"),
        ("AttentionUnet", (16, 30, 16), r"^AttentionUnet .* multiples of 8 .* [16, 32, 16] would be valid"),
        ("UNETR", (16, 24, 40), r"^UNETR with tokens of 16 .* found [16, 24, 40]; [16, 32, 32] would be valid"),
    ],
)
def test_invalid_sizes_raise_errors_that_suggest_valid_sizes(name, size, message):
    pattern = ".*".join(re.escape(part) for part in message.removeprefix("^").split(".*"))
    with pytest.raises(ValueError, match=("^" if message.startswith("^") else "") + pattern) as error:
        create_network(name, 3, 1, 2, size, **SMALL.get(name, {}))
    valid = tuple(int(n) for n in re.findall(r"\[([\d, ]+)\] would", str(error.value))[0].split(", "))
    network = create_network(name, 3, 1, 2, valid, **SMALL.get(name, {})).eval()
    assert network(torch.rand(1, 1, *valid)).shape == (1, 2, *valid)


def test_unetr_rejects_other_sizes():
    network = create_network("UNETR", 3, 1, 2, (16, 32, 16), **SMALL["UNETR"])
    check_size(network, (16, 32, 16))
    with pytest.raises(ValueError, match=r"created for inputs of \[16, 32, 16\] voxels.*found \[32, 32, 32\]"):
        check_size(network, (32, 32, 32))


def test_invalid_names_and_options_raise_errors():
    with pytest.raises(ValueError, match="Unknown network 'VNet'; expected one of UNet, AttentionUnet, DynUNet, UNETR"):
        create_network("VNet", 3, 1, 2)
    with pytest.raises(ValueError, match="does not accept the options"):
        create_network("UNet", 3, 1, 2, invalid_option=2)
    with pytest.raises(ValueError, match=r"AttentionUnet does not accept the options .'norm': 'batch'."):
        create_network("AttentionUnet", 3, 1, 2, norm="batch")
    with pytest.raises(ValueError, match=r"DynUNet does not accept .*: at least three channels are needed, found 2"):
        create_network("DynUNet", 3, 1, 2, channels=(4, 8), strides=(2,))
    with pytest.raises(ValueError, match=r"UNETR needs a fixed input size; set data.spatial_size"):
        create_network("UNETR", 3, 1, 2)


def test_strides_per_axis_and_wrong_numbers_of_strides():
    options = {"channels": (4, 8, 8), "strides": ((2, 2, 1), (2, 2, 2))}
    for name in ("UNet", "DynUNet"):
        network = create_network(name, 3, 1, 2, (16, 16, 6), **options).eval()
        assert network(torch.rand(1, 1, 16, 16, 6)).shape == (1, 2, 16, 16, 6)
        padded = pad_to_fit(network, torch.rand(1, 1, 15, 17, 5))
        assert padded.shape == (1, 1, 16, 20, 6)
    with pytest.raises(ValueError, match=r"multiples of \[4, 4, 2\] and at least \[8, 8, 4\], found \[16, 16, 3\]"):
        create_network("UNet", 3, 1, 2, (16, 16, 3), **options)
    for name in ("UNet", "AttentionUnet"):
        with pytest.raises(ValueError, match=f"{name} needs one stride fewer than channels; found 5 channels and"):
            create_network(name, 3, 1, 2, channels=(4, 4, 8, 8, 8))


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_changes_the_storage_and_not_the_results(dims):
    network = create_network("UNet", dims, 1, 2).eval()
    inputs = torch.rand(1, 1, *(16,) * dims)
    expected = network(inputs)
    use_channels_last(network)
    weights = next(weights for weights in network.parameters() if weights.ndim == dims + 2 and weights.shape[1] > 1)
    assert weights.stride(1) == 1
    torch.testing.assert_close(network(inputs), expected, atol=1e-5, rtol=1e-4)
