"""Sliding windows along elevation, compared with MONAI's windows over the whole volume."""

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from cm_lightning.tasks.windows import slide_along_elevation


@pytest.mark.parametrize("size", [(20, 24, 41), (20, 24, 16), (20, 24, 5), (9, 40, 33), (16, 16, 17)], ids=str)
@pytest.mark.parametrize("overlap", [0.5, 0.25])
def test_windows_equal_those_of_monai(size, overlap):
    torch.manual_seed(0)
    image = torch.randn(1, 2, *size)
    network = torch.nn.Conv3d(2, 3, 5, padding=2)  # its results depend on the borders of the window
    window = SlidingWindowInferer((16, 16, 16), mode="gaussian", overlap=overlap)
    computed = []

    def compute(frames):
        computed.append(frames)
        part = image[..., frames.start : frames.stop]
        return {"logits": window(part, network)[0], "image": part[0]}

    with torch.no_grad():
        parts = list(slide_along_elevation(compute, size, window))
        expected = window(image, network)[0]
    torch.testing.assert_close(torch.cat([part["logits"] for part in parts], dim=-1), expected)
    torch.testing.assert_close(torch.cat([part["image"] for part in parts], dim=-1), image[0])
    assert max(len(frames) for frames in computed) <= 16
