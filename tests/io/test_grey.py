"""Conversion of colour to grey."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cm_lightning.errors import InputError
from cm_lightning.io.grey import label_channel, to_grey


def test_grey_values_are_those_computed_by_hand():
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2; 0.299 * 255 = 76.245; 0.587 * 255 = 149.685; 0.114 * 255 = 29.07
    colours = np.array([[200, 100, 50], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    assert to_grey(colours).tolist() == [124, 76, 150, 29, 255]
    assert to_grey(colours.astype(np.uint16) * 257).tolist() == [31919, 19595, 38469, 7471, 65535]
    np.testing.assert_allclose(to_grey(colours / 255), [0.487, 0.299, 0.587, 0.114, 1], atol=1e-3)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5).map(lambda s: (*s[:2], 3))))
def test_grey_values_are_those_of_pillow(colours):
    np.testing.assert_array_equal(to_grey(colours), np.asarray(Image.fromarray(colours).convert("L")))


@given(hnp.arrays(np.uint16, (4, 1)), st.sampled_from([1, 2, 3, 4]))
def test_grey_colours_keep_their_value_and_alpha_is_ignored(values, channels):
    colours = np.repeat(values[..., None], channels, axis=-1)
    if channels in (2, 4):
        colours[..., -1] = 7
    np.testing.assert_array_equal(to_grey(colours), values)
    np.testing.assert_array_equal(label_channel("a", colours), values)


def test_large_pictures_are_converted_in_parts(monkeypatch, rng):
    colours = rng.integers(0, 256, (50, 7, 3)).astype(np.uint8)
    whole = to_grey(colours)
    monkeypatch.setattr("cm_lightning.io.grey.CHUNK_PIXELS", 20)
    np.testing.assert_array_equal(to_grey(colours), whole)


def test_other_channels_and_types_raise_errors():
    with pytest.raises(ValueError, match="5 channels; expected 1 to 4"):
        to_grey(np.zeros((2, 5), np.uint8))
    with pytest.raises(ValueError, match="have the type int16; expected uint8"):
        to_grey(np.zeros((2, 3), np.int16))
    with pytest.raises(InputError, match=r"The label a.png contains colours"):
        label_channel("a.png", np.array([[1, 1, 2]], np.uint8))
    with pytest.raises(InputError, match=r"The label a.png contains transparent pixels"):
        label_channel("a.png", np.array([[1, 1, 1, 0], [1, 1, 1, 255]], np.uint8))
