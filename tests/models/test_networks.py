"""Networks by name."""

import pytest
import torch

from cm_lightning.models import create_network
from cm_lightning.models.networks import refuse_size


@pytest.mark.parametrize("dims", [2, 3])
def test_unet_gives_a_logit_a_class_and_voxel(dims):
    network = create_network("UNet", dims, 2, 4)
    assert network(torch.rand(2, 2, *(16,) * dims)).shape == (2, 4, *(16,) * dims)


def test_unet_has_the_size_of_the_documented_defaults():
    assert sum(p.numel() for p in create_network("UNet", 3, 1, 4).parameters()) == pytest.approx(0.435e6, rel=0.01)


def test_refusals():
    with pytest.raises(ValueError, match="Unknown network 'VNet'"):
        create_network("VNet", 3, 1, 2)
    with pytest.raises(ValueError, match="does not take the options"):
        create_network("UNet", 3, 1, 2, wings=2)
    with pytest.raises(ValueError, match=r"multiples of 8.*found \[20, 16, 16\]. \[16, 16, 16\] would work"):
        refuse_size(create_network("UNet", 3, 1, 2), 3, 1, (20, 16, 16))
