"""Registration network and warping."""

import pytest
import torch

from cm_lightning.models import create_registration_network
from cm_lightning.models.registration import warp


@pytest.mark.parametrize("dims", [2, 3])
def test_registration_starts_at_the_identity(dims):
    network = create_registration_network(dims, 2)
    displacement = network(torch.rand(2, 4, *(16,) * dims))
    assert displacement.shape == (2, dims, *(16,) * dims)
    assert displacement.abs().max() < 1e-2
    displacement.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_warp_samples_at_displaced_positions():
    columns = torch.arange(5.0).repeat(4, 1)[None, None]
    lateral = torch.zeros(1, 2, 4, 5)
    lateral[:, 1] = 1.5
    torch.testing.assert_close(warp(columns, lateral)[0, 0, 0], torch.tensor([1.5, 2.5, 3.5, 4.0, 4.0]))
    axial = torch.zeros(1, 2, 4, 5)
    axial[:, 0] = -1
    rows = torch.arange(4.0)[:, None].repeat(1, 5)[None, None]
    torch.testing.assert_close(warp(rows, axial)[0, 0, :, 0], torch.tensor([0.0, 0.0, 1.0, 2.0]))


def test_warp_is_in_float32_under_autocast():
    image, displacement = torch.rand(1, 1, 8, 8).bfloat16(), torch.full((1, 2, 8, 8), 0.3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        warped = warp(image, displacement)
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped, warp(image.float(), displacement.float()))


def test_invalid_options_raise_an_error():
    with pytest.raises(ValueError, match="registration network does not accept the options"):
        create_registration_network(3, 1, invalid_option=2)
