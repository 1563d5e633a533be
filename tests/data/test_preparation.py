"""Resampling, and the depth control."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cm_lightning.data.map_sources import DepthRamp
from cm_lightning.data.resampling import resample


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 50)])
def test_upsampling_equals_linear_interpolation(rng, shape):
    array = rng.random(shape, dtype=np.float32)
    size = tuple(2 * n + 1 for n in shape)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(torch.from_numpy(array)[None, None], size=size, mode=mode, align_corners=False)[0]
    torch.testing.assert_close(resample(array, size, "linear"), expected, atol=1e-5, rtol=0)


def test_downsampling_averages_speckle_and_preserves_ramps(rng):
    noise = rng.standard_normal((64, 64, 64)).astype(np.float32)
    assert resample(noise, (16, 16, 16), "linear").std() < 0.15  # 1 without antialiasing
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (64, 64, 64))
    small = resample(ramp, (16, 16, 16), "linear")[0, 1:-1, 8, 8]
    np.testing.assert_allclose(small, np.arange(1, 15) * 4 + 1.5, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 40)])
def test_labels_are_resampled_without_interpolation(rng, shape):
    label = rng.integers(0, 4, shape, dtype=np.uint8)
    assert torch.equal(resample(label, shape, "nearest")[0], torch.from_numpy(label))
    doubled = resample(label, tuple(2 * n for n in shape), "nearest")[0]
    assert doubled.dtype == torch.uint8
    assert torch.equal(doubled[tuple(slice(None, None, 2) for _ in shape)], torch.from_numpy(label))


def test_depth_ramp_decreases_over_the_insonified_rows_of_every_frame():
    domain = torch.zeros(1, 6, 3, 2, dtype=torch.bool)
    domain[0, 1:5, 1:, 0] = True
    domain[0, :, :, 1] = True
    ramp = DepthRamp()(None, domain, (6, 3, 2))
    torch.testing.assert_close(ramp[0, :, 1, 0], torch.tensor([0, 1, 2 / 3, 1 / 3, 0, 0]))
    torch.testing.assert_close(ramp[0, :, 2, 1], torch.linspace(1, 0, 6))
    assert (ramp[0, :, 0, 0] == 0).all()
    flat = DepthRamp()(None, domain[..., 1], (6, 3))
    torch.testing.assert_close(flat, ramp[..., 1])
