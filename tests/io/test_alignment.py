"""Labels whose files state another orientation or another grid than those of their image."""

from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_lightning.errors import InputError
from cm_lightning.io import FileImage, align_label

AFFINE = np.array([[0.0, 0.3, 0.4, 5.0], [-0.2, 0.0, 0.0, -6.0], [0.0, -0.4, 0.3, 7.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (4, 5, 6)


def align(array, affine, image_affine=AFFINE, shape=SHAPE):
    """Return the label on the grid of an image."""
    image = FileImage(np.zeros(shape, np.uint8), None, image_affine)
    return align_label(FileImage(array, None, affine), image, Path("label.nii"), Path("image.nii")).apply(array)


@given(st.sampled_from(list(permutations(range(3)))), st.tuples(*[st.booleans()] * 3), st.integers(0, 1000))
def test_other_orders_and_directions_of_axes_are_undone(order, flips, seed):
    original = np.random.default_rng(seed).integers(0, 5, SHAPE, np.uint8)
    stored = nibabel.Nifti1Image(original, AFFINE).as_reoriented(
        np.array([[order.index(axis), -1 if flips[axis] else 1] for axis in range(3)])
    )
    np.testing.assert_array_equal(align(np.asarray(stored.dataobj), stored.affine.astype(np.float32)), original)


def test_other_grids_are_refused():
    label = np.zeros(SHAPE, np.uint8)
    for change in (
        np.diag([1.0, 1.0, 1.5, 1.0]),  # another voxel size
        np.array([[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),  # another origin
        np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),  # rotated
    ):
        with pytest.raises(InputError, match=r"label.nii is on another grid than its image image.nii: .* voxels apart"):
            align(label, AFFINE @ change)
    nearly = AFFINE.copy()
    nearly[:3, 3] += 0.001  # rounding
    align(label, nearly)
    with pytest.raises(InputError, match=r"label.nii has the shape \(4, 5, 7\); expected \(4, 5, 6\)"):
        align(np.zeros((4, 5, 7), np.uint8), AFFINE)


def test_files_without_a_place_are_taken_as_they_are(rng):
    label = rng.integers(0, 5, SHAPE, np.uint8)
    for unknown in (np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])):
        np.testing.assert_array_equal(align(label, unknown), label)
        np.testing.assert_array_equal(align(label, AFFINE, image_affine=unknown), label)


def test_pictures_in_space_are_compared_in_their_plane():
    label = np.arange(20, dtype=np.uint8).reshape(4, 5)
    flipped = AFFINE.copy()
    flipped[:3, 0] *= -1
    flipped[:3, 3] = AFFINE[:3, 3] + 3 * AFFINE[:3, 0]
    np.testing.assert_array_equal(align(label, flipped, shape=(4, 5)), label[::-1])
    away = AFFINE.copy()
    away[:3, 3] += AFFINE[:3, 2]
    with pytest.raises(InputError, match="on another grid"):
        align(label, away, shape=(4, 5))
