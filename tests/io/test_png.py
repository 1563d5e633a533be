"""PNG files, as other programs read them."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from cm_lightning.io.png import write_png

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=20)
PICTURES = st.one_of(arrays(dtype, SHAPES) for dtype in (np.uint8, np.uint16))


def written(picture, palette=None):
    file = io.BytesIO()
    write_png(file, picture, palette)
    Image.open(file).verify()  # the checksums
    file.seek(0)
    return Image.open(file)


@given(PICTURES, st.booleans())
def test_other_programs_read_the_same_values(picture, is_transposed):
    picture = picture.T if is_transposed else picture
    image = written(picture)
    assert image.mode == {1: "L", 2: "I;16"}[picture.itemsize]
    np.testing.assert_array_equal(np.asarray(image), picture)


@given(arrays(np.uint8, SHAPES))
def test_labels_keep_their_values_and_have_colours(picture):
    palette = bytes(range(256)) * 3
    colours = np.frombuffer(palette, np.uint8).reshape(256, 3)
    image = written(picture, palette)
    np.testing.assert_array_equal(np.asarray(image), picture)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colours[picture])
