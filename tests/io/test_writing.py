"""Results in the formats and with the geometry of their inputs."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cm_lightning.errors import InputError
from cm_lightning.io import Axes, FileImage, FrameWriter, read_image
from cm_lightning.io.file_image import picture_image

AFFINE = np.array([[0, -0.5, 0, 3], [0.25, 0, 0, -4], [0, 0, 2, 5], [0, 0, 0, 1]], float)
VOLUMES = ["nii", "nii.gz", "mha", "nrrd"]
TAGS = {
    "Kinds": "domain domain list",
    "UltrasoundImageOrientation": "MF",
    "Seq_Frame0000_Timestamp": "1.5",
    "Seq_Frame0003_Timestamp": "3.0",
    "Seq_Frame0003_ProbeToTrackerTransform": "1 0 0 3 0 1 0 0 0 0 1 0 0 0 0 1",
}


def volume(shape=(6, 5, 4), **fields):
    return FileImage(np.zeros(shape, np.uint8), (0.25, 0.5, 2.0), AFFINE, **fields)


def write(path, template, axes, dtype, result, parts=1, **options):
    """Write a result, ``(depth, lateral[, elevation])``, in several parts."""
    frames = result[None] if result.ndim == 2 else np.moveaxis(result, 2, 0)
    with FrameWriter(path, template, Axes(axes), dtype, **options) as writer:
        for part in np.array_split(frames, parts):
            writer.write(part)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


def result_for(template, axes, seed=0):
    return np.random.default_rng(seed).random(Axes(axes).from_file(template.array).shape).astype(np.float32)


@pytest.mark.parametrize("suffix", VOLUMES)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize("axes", ["lateral depth elevation", "-depth lateral elevation", "elevation depth -lateral"])
def test_volumes_are_read_as_written(suffix, dtype, axes, tmp_path):
    template = volume()
    result = result_for(template, axes)
    image = read_image(write(tmp_path / f"a.{suffix}", template, axes, dtype, result, parts=2))
    expected = Axes(axes).to_file(result)
    if dtype != "float32":
        highest = np.iinfo(dtype).max
        expected = np.rint(expected * float(highest))
        if "nii" in suffix:  # scaled back by the slope
            expected = expected / highest
            assert image.array.max() <= 1
        else:
            assert image.array.dtype == dtype
    np.testing.assert_allclose(image.array, expected, rtol=1e-6 if "nii" in suffix else 0)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(image.spacing, template.spacing)


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_tags_and_frame_rate_of_sequences_survive(suffix, tmp_path):
    template = volume(tags=TAGS, axes="lateral depth elevation", frames_per_second=2.0)
    result = result_for(template, template.axes)
    path = write(tmp_path / f"a.seq.{suffix}", template, template.axes, "uint8", result)
    image = read_image(path)
    assert {**image.tags, "Kinds": ""} == {**TAGS, "Kinds": ""}
    assert (image.axes, image.frames_per_second, image.array.shape) == (template.axes, 2, (6, 5, 4))
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.spacing == template.spacing
    # A copy of the copy is the same file.
    copy = tmp_path / "copy" / path.name
    write(copy, image, template.axes, "uint8", result)
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("suffix", ["mha", "nrrd", "nii"])
def test_other_programs_read_the_same(suffix, tmp_path):
    template = volume()
    result = result_for(template, "lateral depth elevation")
    path = write(tmp_path / f"a.{suffix}", template, "lateral depth elevation", "float32", result)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, np.swapaxes(result, 0, 1))
    np.testing.assert_allclose(image.GetSpacing(), template.spacing)
    for index in [(0, 0, 0), (5, 4, 3)]:
        x, y, z, _ = AFFINE @ [*index, 1]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), (-x, -y, z), atol=1e-6)


@pytest.mark.parametrize("suffix", VOLUMES)
def test_loops_become_volumes_that_begin_with_the_lateral_axis(suffix, tmp_path):
    template = picture_image(np.zeros((6, 5, 4), np.uint8), (0.2, 0.4), 1.0, frames_per_second=25.0)
    result = result_for(template, template.axes)
    image = read_image(write(tmp_path / f"a.{suffix}", template, template.axes, "float32", result))
    np.testing.assert_array_equal(image.array, np.swapaxes(result, 0, 1))
    np.testing.assert_allclose(image.spacing, (0.4, 0.2, 1))
    np.testing.assert_allclose(image.affine, np.diag([-0.4, -0.2, 1, 1]), atol=1e-7)
    assert image.frames_per_second == pytest.approx(25)
    assert image.axes == (None if "nii" in suffix else "lateral depth elevation")


@pytest.mark.parametrize("suffix", ["mha", "nrrd", "nii.gz"])
def test_pictures_become_volumes_with_two_axes(suffix, tmp_path):
    template = picture_image(np.zeros((6, 5), np.uint8))
    result = result_for(template, "-depth lateral")
    image = read_image(write(tmp_path / f"a.{suffix}", template, "-depth lateral", "float32", result))
    np.testing.assert_array_equal(image.array, result[::-1].T)
    assert image.axes == (None if suffix == "nii.gz" else "lateral -depth")
    assert image.spacing == ((1, 1) if suffix == "nii.gz" else None)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", "uint8"), ("png", "uint16"), ("bmp", "uint8"), ("tif", "uint16"), ("tiff", "float32")]
)
@pytest.mark.parametrize("axes", ["depth lateral", "-depth lateral", "lateral depth"])
def test_pictures_are_read_as_written(suffix, dtype, axes, tmp_path):
    template = picture_image(np.zeros((6, 5), np.uint8))
    result = result_for(template, axes)
    image = read_image(write(tmp_path / f"a.{suffix}", template, axes, dtype, result))
    scale = 1 if dtype == "float32" else np.iinfo(dtype).max
    assert image.array.dtype == dtype
    expected = Axes(axes).to_file(result)
    np.testing.assert_array_equal(image.array, expected if scale == 1 else np.rint(expected * float(scale)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_are_read_as_written(dtype, tmp_path):
    template = volume()
    result = result_for(template, "lateral depth elevation")
    image = read_image(write(tmp_path / "a.tif", template, "lateral depth elevation", dtype, result, parts=3))
    np.testing.assert_allclose(image.array, result * (1 if dtype == "float32" else np.iinfo(dtype).max), atol=0.501)
    assert (image.array.dtype, image.axes) == (dtype, "depth lateral elevation")


@pytest.mark.parametrize(("suffix", "tolerance"), [("avi", 0), ("mkv", 0), ("mp4", 6), ("mov", 6)])
@pytest.mark.parametrize("shape", [(32, 48, 5), (31, 47, 5)])
def test_videos_are_read_as_written(suffix, tolerance, shape, tmp_path):
    pytest.importorskip("av")
    template = picture_image(np.zeros(shape, np.uint8), frames_per_second=12.5)
    rows, columns, frames = np.mgrid[: shape[0], : shape[1], : shape[2]]
    result = (rows / 80 + columns / 100 + frames / 50).astype(np.float32)
    image = read_image(write(tmp_path / f"a.{suffix}", template, template.axes, "uint8", result, parts=5))
    assert image.frames_per_second == 12.5
    np.testing.assert_allclose(image.array.astype(float), np.rint(result.astype(float) * 255), atol=tolerance)


@pytest.mark.parametrize("axes", ["lateral depth elevation", "elevation depth lateral"])
def test_archives_contain_map_spacing_and_affine(axes, tmp_path):
    result = result_for(volume(), axes)
    with np.load(write(tmp_path / "a.npz", volume(), axes, "float32", result)) as archive:
        np.testing.assert_array_equal(archive["confidence"], Axes(axes).to_file(result))
        np.testing.assert_array_equal(archive["spacing"], (0.25, 0.5, 2))
        np.testing.assert_array_equal(archive["affine"], AFFINE)
        assert archive["axes"] == axes


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([*VOLUMES, "npz", "tif"]),
    axes=st.permutations(["depth", "lateral", "elevation"]),
    signs=st.tuples(*[st.sampled_from(["", "-"])] * 3),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    parts=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_order_of_axes_is_read_as_written(suffix, axes, signs, shape, parts, seed, tmp_path_factory):
    text = " ".join(sign + axis for sign, axis in zip(signs, axes, strict=True))
    result = result_for(volume(shape), text, seed)
    path = write(tmp_path_factory.mktemp("any") / f"a.{suffix}", volume(shape), text, "float32", result, parts)
    if suffix == "npz":
        np.testing.assert_array_equal(np.load(path)["confidence"], Axes(text).to_file(result))
    elif suffix == "tif":
        array = read_image(path).array
        np.testing.assert_array_equal(array.reshape(result.shape), result)
    else:
        np.testing.assert_array_equal(read_image(path).array, Axes(text).to_file(result))


def test_integers_keep_their_values_and_numbers_are_limited(tmp_path):
    template = picture_image(np.zeros((1, 3), np.uint8))
    path = write(tmp_path / "a.png", template, "depth lateral", "uint8", np.array([[0, 3, 200]], np.uint8))
    assert read_image(path).array.tolist() == [[0, 3, 200]]
    write(path, template, "depth lateral", "uint8", np.array([[-1e-7, 0.5, 1 + 1e-6]]))
    assert read_image(path).array.tolist() == [[0, 128, 255]]


def test_display_range_is_written_to_nifti(tmp_path):
    import nibabel

    result = result_for(volume(), "lateral depth elevation")
    options = {"display_range": (0.0, 1.0)}
    path = write(tmp_path / "a.nii", volume(), "lateral depth elevation", "float32", result, **options)
    header = nibabel.load(path).header
    assert (header["cal_min"], header["cal_max"]) == (0, 1)


@pytest.mark.parametrize("suffix", [*VOLUMES, "npz", "tif", "avi", "mp4"])
def test_after_an_error_the_earlier_file_remains(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"earlier")
    frames = np.zeros((4, 6, 5), np.float32)

    def interrupted(count):
        with FrameWriter(path, volume((5, 6, 4)), Axes("lateral depth elevation"), "uint8") as writer:
            writer.write(frames[:count])
            assert path.read_bytes() == b"earlier"
            raise KeyboardInterrupt

    for count in (0, 2, 4):
        with suppress(KeyboardInterrupt):
            interrupted(count)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"earlier"]
    with (
        pytest.raises(ValueError, match=r"2 frames were written to .*, not 4"),
        FrameWriter(path, volume((5, 6, 4)), Axes("lateral depth elevation"), "uint8") as writer,
    ):
        writer.write(frames[:2])
    with (
        pytest.raises(ValueError, match=r"5 frames were written to .*, not 4"),
        FrameWriter(path, volume((5, 6, 4)), Axes("lateral depth elevation"), "uint8") as writer,
    ):
        writer.write(np.concatenate([frames, frames[:1]]))
    with (
        pytest.raises(ValueError, match=r"The frames have the shape \(4, 5, 6\); expected"),
        FrameWriter(path, volume((5, 6, 4)), Axes("lateral depth elevation"), "uint8") as writer,
    ):
        writer.write(np.zeros((4, 5, 6)))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"earlier"]


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("a.xyz", "uint8", r"The format of .*a.xyz cannot be written; expected one of .nii.gz"),
        ("a.png", "uint8", r"a.png would contain 4 frames, but the format .png holds only one"),
        ("a.mp4", "float32", r"a.mp4 cannot contain values of type float32; the format .mp4 supports uint8"),
        ("a.nii", "float64", r"values of type float64; the format .nii supports uint8, uint16, float32"),
    ],
)
def test_unsupported_formats_raise_one_sentence(name, dtype, message, tmp_path):
    with pytest.raises(InputError, match=message):
        FrameWriter(tmp_path / name, volume(), Axes("lateral depth elevation"), dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [*VOLUMES, "npz", "tif"])
def test_frames_are_not_kept_in_memory(suffix, tmp_path):
    frame = np.random.default_rng(0).random((1, 200, 300)).astype(np.float32)
    template = FileImage(np.broadcast_to(np.uint8(0), (300, 200, 40)), (1.0, 1.0, 1.0), np.eye(4))
    tracemalloc.start()
    with FrameWriter(tmp_path / f"a.{suffix}", template, Axes("lateral depth elevation"), "float32") as writer:
        for _ in range(40):
            writer.write(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * frame.nbytes
