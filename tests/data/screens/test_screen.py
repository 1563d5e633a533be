"""Synthetic screens."""

import numpy as np
import pytest
from PIL import Image

from cm_lightning.data.screens import TissueTextures, draw_screen
from cm_lightning.data.screens.pictures import FAMILIES, Box, draw_region
from cm_lightning.errors import InputError


def test_screens_are_reproducible_and_valid():
    textures = TissueTextures()
    for seed in range(8):
        screen, again = (draw_screen(np.random.default_rng(seed), textures) for _ in range(2))
        np.testing.assert_array_equal(screen.image, again.image)
        np.testing.assert_array_equal(screen.region.inside, again.region.inside)
        assert screen.image.dtype == np.uint8
        assert screen.image.shape == screen.region.inside.shape == screen.region.depth.shape
        assert screen.region.inside.mean() > 0.02
        if screen.change is not None:
            assert screen.change.shape == screen.image.shape
            assert (screen.change >= 0).all()


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_depth_increases_from_the_side_of_the_probe(family, side, rng):
    region = draw_region(rng, (150, 180), Box(10, 140, 15, 170), family, side)
    rows, columns = np.nonzero(region.inside)
    depth = region.depth[region.inside]
    position = {"top": rows, "bottom": -rows, "left": columns, "right": -columns}[side]
    assert np.corrcoef(position, depth)[0, 1] > 0.6
    assert depth.min() < 0.05
    assert depth.max() > 0.6


def test_textures_are_the_central_parts_of_images(tmp_path, rng):
    image = np.full((100, 120), 255, np.uint8)
    image[25:75, 30:90] = rng.integers(0, 100, (50, 60))
    Image.fromarray(image).save(tmp_path / "tissue.png")
    Image.fromarray(image).save(tmp_path / "screen.png")
    textures = TissueTextures([tmp_path], exclude="screen")
    assert len(textures.real) == 1
    assert textures.real[0].max() < 100
    with pytest.raises(InputError, match="contains no image with tissue"):
        TissueTextures([tmp_path], exclude=r"\.png")
