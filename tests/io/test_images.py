"""Image files: geometry in different formats, names of axes, and 2D images."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from cm_lightning.io import Axes, read_image


@pytest.mark.parametrize("text", ["depth", "depth depth lateral", "x y z", "lateral elevation"])
def test_invalid_axes_raise_errors(text):
    with pytest.raises(ValueError, match="axes must name each"):
        Axes(text)


def test_geometry_of_mha_and_nifti_is_equal(tmp_path, rng):
    image = sitk.GetImageFromArray(rng.random((3, 4, 5)).astype(np.float32))
    image.SetSpacing((0.5, 1.0, 2.0))
    image.SetOrigin((3.0, -2.0, 7.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    first, second = read_image(tmp_path / "a.mha"), read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(first.array, second.array)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-6)
    np.testing.assert_allclose(first.affine, nibabel.load(tmp_path / "a.nii.gz").affine, atol=1e-6)
    np.testing.assert_allclose(first.spacing, second.spacing)


def test_colour_images_become_grey_and_palette_labels_keep_their_indices(tmp_path):
    colour = np.zeros((4, 6, 3), dtype=np.uint8)
    colour[1] = 90
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").array.shape == (4, 6)
    palette = Image.fromarray(np.array([[0, 1], [2, 2]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_image(tmp_path / "mask.png", is_label=True).array, [[0, 1], [2, 2]])
