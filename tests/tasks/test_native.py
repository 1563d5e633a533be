"""Resizing from the network's grid to the grid of a file."""

import pytest
import torch

from cm_lightning.tasks.native import (
    foreground_probabilities,
    image_confidence,
    native_probabilities,
    native_segmentation,
    resize_frame,
    resize_linearly,
    to_native,
)

SHAPES = [(9, 14), (9, 14, 11), (5, 4, 3)]


@pytest.fixture(params=SHAPES, ids=str)
def case(request):
    """Return logits of four classes on a small grid, and a batch with the shape of the file."""
    torch.manual_seed(0)
    shape = request.param
    return 3 * torch.randn(1, 4, *(6, 7, 5)[: len(shape)]), {"native_shape": torch.tensor([shape])}


@pytest.mark.parametrize("shape", [(9, 14, 11), (5, 4, 3)])
def test_resize_frame_equals_a_frame_of_the_resized_volume(shape):
    volume = torch.rand(2, 6, 7, 5)
    for frame in range(shape[2]):
        expected = torch.stack([resize_linearly(channel, shape)[..., frame] for channel in volume])
        torch.testing.assert_close(resize_frame(volume, shape, frame), expected)
    image = torch.rand(1, 6, 7)
    torch.testing.assert_close(resize_frame(image, shape[:2], 0)[0], resize_linearly(image[0], shape[:2]))


def test_resizing_preserves_linear_functions_of_position():
    depth = torch.arange(8.0)[:, None].expand(8, 6)
    resized = resize_linearly(depth, (16, 6))
    torch.testing.assert_close(resized[1:-1, 0], (torch.arange(1.0, 15) + 0.5) / 2 - 0.5)
    assert resize_linearly(depth, (8, 6)) is depth


def test_channels_are_resized_one_by_one_in_float32(case):
    logits, batch = case
    channels = to_native(logits.half(), batch)
    first = next(channels)
    assert first.dtype == torch.float32
    assert first.shape == tuple(batch["native_shape"][0].tolist())
    torch.testing.assert_close(first, resize_linearly(logits[0, 0].half().float(), list(first.shape)))
    assert len(list(channels)) == 3


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_segmentation_and_probabilities_agree(case, temperature):
    logits, batch = case
    probabilities = native_probabilities(logits, batch, temperature)
    assert torch.equal(probabilities.argmax(dim=0), native_segmentation(logits, batch).long())
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones_like(probabilities[0]))
    streamed = torch.stack(list(foreground_probabilities(logits, batch, temperature)))
    torch.testing.assert_close(streamed, probabilities[1:])


def test_temperature_changes_probabilities_but_not_the_logits(case):
    logits, batch = case
    before = logits.clone()
    # If the grids are equal, the logits are not copied by resizing.
    for sizes in (batch, {"native_shape": torch.tensor([logits.shape[2:]])}):
        hard, soft = native_probabilities(logits, sizes), native_probabilities(logits, sizes, 4.0)
        assert (soft.amax(dim=0) < hard.amax(dim=0)).all()
        list(foreground_probabilities(logits, sizes, 4.0))
        assert torch.equal(logits, before)


def test_own_confidence_takes_precedence_over_the_map_of_a_control():
    sizes = {"native_shape": torch.tensor([(4, 4)])}
    own, control = torch.full((1, 1, 2, 2), 0.25), torch.full((1, 1, 2, 2), 0.75)
    assert image_confidence(sizes) is None
    assert image_confidence({**sizes, "confidence": control}).unique() == 0.75
    assert image_confidence({**sizes, "confidence": control, "image_confidence": own}).unique() == 0.25
