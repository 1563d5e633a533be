"""Resizing from the network's grid to the grid of a file, a few frames at a time."""

import pytest
import torch

from cm_lightning.tasks import native
from cm_lightning.tasks.native import image_confidence, native_frames, read_frame, resize_frame, resize_linearly


def whole(parts, number):
    """Join the frames, and check that they follow each other."""
    parts = list(parts)
    assert [frame for part in parts for frame in part.frames] == list(range(number))
    return {name: torch.cat([part.maps[name] for part in parts], dim=-1) for name in parts[0].maps}


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


@pytest.mark.parametrize("lengths", [[7], [3, 4], [1] * 7, [2, 1, 4]], ids=str)
@pytest.mark.parametrize("shape", [(9, 14, 11), (5, 4, 3), (6, 8, 7), (6, 8, 1), (12, 16, 50)], ids=str)
@pytest.mark.parametrize("at_once", [1, 2**24])
def test_frames_equal_the_resized_volume(shape, lengths, at_once, monkeypatch):
    monkeypatch.setattr(native, "VALUES_AT_ONCE", at_once)
    volumes = {"logits": torch.randn(3, 6, 8, 7).half(), "confidence": torch.rand(1, 6, 8, 7)}
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    parts = (
        {name: volume[..., end - length : end] for name, volume in volumes.items()}
        for length, end in zip(lengths, ends, strict=True)
    )
    joined = whole(native_frames(parts, 7, shape), shape[2])
    for name, volume in volumes.items():
        expected = torch.stack([resize_linearly(channel.float(), shape) for channel in volume])
        assert joined[name].dtype == torch.float32
        torch.testing.assert_close(joined[name], expected)


def test_image_is_a_single_frame():
    image = torch.randn(3, 6, 7)
    joined = whole(native_frames([{"logits": image}], 1, (9, 14)), 1)["logits"]
    torch.testing.assert_close(joined[..., 0], torch.stack([resize_linearly(channel, (9, 14)) for channel in image]))


def test_own_confidence_takes_precedence_over_the_map_of_a_control():
    sizes = {"native_shape": torch.tensor([(4, 4)])}
    own, control = torch.full((1, 1, 2, 2), 0.25), torch.full((1, 1, 2, 2), 0.75)
    assert read_frame(sizes, "image", 0) is None
    assert image_confidence(sizes, 0) is None
    assert image_confidence({**sizes, "confidence": control}, 0).unique() == 0.75
    assert image_confidence({**sizes, "confidence": control, "image_confidence": own}, 0).unique() == 0.25
