"""Results that are written frame by frame: values, geometry, tags, memory, and what remains after an error."""

import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageSequence
from scipy.spatial.transform import Rotation

from cm_lightning.errors import InputError
from cm_lightning.io import Axes, FileImage, FrameWriter, read_image

FORMATS = (".tif", ".nii", ".nii.gz", ".mha", ".nrrd", ".npz")
DTYPES = ("uint8", "uint16", "float32")
SPACING = (0.5, 0.8, 1.25)
# The file as a function of the frames, (frames, depth, lateral).
VOLUMES = {
    "lateral depth elevation": lambda frames: frames.transpose(2, 1, 0),
    "elevation -depth lateral": lambda frames: frames[:, ::-1],
    "-depth lateral -elevation": lambda frames: frames[::-1, ::-1].transpose(1, 2, 0),
}
IMAGES = {
    "depth lateral": lambda frames: frames[0],
    "lateral -depth": lambda frames: frames[0].T[:, ::-1],
}
CASES = [
    *((text, suffix, dtype) for text in VOLUMES for suffix in FORMATS for dtype in DTYPES),
    *((text, suffix, dtype) for text in IMAGES for suffix in FORMATS for dtype in DTYPES),
    *((text, ".png", dtype) for text in IMAGES for dtype in ("uint8", "uint16")),
]


def make_template(shape, **tags):
    """Return an input of a shape that is turned in the world, 2D images around the third axis."""
    number = len(shape)
    turn = Rotation.from_euler("xyz", (20, -35, 50) if number == 3 else (0, 0, 50), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn * (*SPACING[:number], *[1.0] * (3 - number))
    affine[:number, 3] = (-30.0, 12.5, 4.0)[:number]
    # No memory for the values, which have no meaning for results.
    return FileImage(np.broadcast_to(np.uint8(0), shape), SPACING[:number], affine, **tags)


def write(path, template, text, frames, dtype="float32", size=2):
    with FrameWriter(path, template, Axes(text), np.dtype(dtype), display_range=(0.0, 1.0)) as writer:
        for start in range(0, len(frames), size):
            writer.write(frames[start : start + size])


def make_case(text, rng, dtype=np.float32):
    """Return frames and the file that they should become."""
    convert = {**VOLUMES, **IMAGES}[text]
    frames = rng.random((5 if text in VOLUMES else 1, 6, 7)).astype(dtype)
    frames[0, 0, :2] = 0, 1
    return frames, convert(frames)


def read_stored(path):
    """Return the values as they are stored."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return arrays["confidence"]
    if path.suffix == ".tif":
        with Image.open(path) as picture:
            pages = [np.asarray(page) for page in ImageSequence.Iterator(picture)]
        return pages[0] if len(pages) == 1 else np.stack(pages, axis=2)
    if ".nii" in path.suffixes:
        return np.asarray(nibabel.load(path).dataobj.get_unscaled())
    return read_image(path).array


@pytest.mark.parametrize(("text", "suffix", "dtype"), CASES)
def test_values_are_read_back(tmp_path, rng, text, suffix, dtype):
    frames, expected = make_case(text, rng)
    path = tmp_path / f"map{suffix}"
    write(path, make_template(expected.shape), text, frames, dtype)
    stored = read_stored(path)
    assert stored.shape == expected.shape
    assert stored.dtype == dtype
    if dtype == "float32":
        np.testing.assert_array_equal(stored, expected)
    else:
        maximum = np.iinfo(dtype).max
        assert np.abs(stored / maximum - expected).max() <= 0.51 / maximum
    if ".nii" in suffix:
        np.testing.assert_allclose(read_image(path).array, expected, atol=0.5001 / 255)
    if suffix in (".tif", ".png") and expected.ndim == 2:
        np.testing.assert_array_equal(read_image(path).array, stored)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("text", [*VOLUMES, *IMAGES])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".npz"])
def test_geometry_is_that_of_the_input(tmp_path, rng, text, suffix):
    frames, expected = make_case(text, rng)
    template = make_template(expected.shape)
    path = tmp_path / f"map{suffix}"
    write(path, template, text, frames)
    if suffix == ".npz":
        with np.load(path) as arrays:
            spacing, affine = arrays["spacing"], arrays["affine"]
    else:
        image = read_image(path)
        spacing, affine = image.spacing, image.affine
    np.testing.assert_allclose(affine, template.affine, atol=1e-5)
    np.testing.assert_allclose(spacing, template.spacing, rtol=1e-6)


@pytest.mark.parametrize("text", [*VOLUMES, *IMAGES])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_simpleitk_reads_values_and_geometry(tmp_path, rng, text, suffix, dtype):
    frames, expected = make_case(text, rng)
    template = make_template(expected.shape)
    path = tmp_path / f"map{suffix}"
    write(path, template, text, frames, dtype)
    image = sitk.ReadImage(str(path))
    scale = 1 if dtype == "float32" or ".nii" in suffix else np.iinfo(dtype).max
    np.testing.assert_allclose(sitk.GetArrayFromImage(image).T / scale, expected, atol=0.5001 / 255)
    corner = [side - 1 for side in expected.shape]
    x, y, *z = image.TransformIndexToPhysicalPoint(corner)
    in_world = template.affine @ [*corner, *[0] * (3 - len(corner)), 1]
    np.testing.assert_allclose([-x, -y, *z], in_world[: len(corner)], atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nibabel_reads_fractions_and_both_transformations(tmp_path, rng, dtype):
    frames, expected = make_case("lateral depth elevation", rng)
    template = make_template(expected.shape)
    write(tmp_path / "map.nii.gz", template, "lateral depth elevation", frames, dtype)
    image = nibabel.load(tmp_path / "map.nii.gz")
    assert image.get_data_dtype() == dtype
    assert image.header.get_xyzt_units()[0] == "mm"
    assert (image.header["cal_min"], image.header["cal_max"]) == (0, 1)
    np.testing.assert_allclose(image.get_fdata(), expected, atol=0.5001 / 255)
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code > 0
        np.testing.assert_allclose(affine, template.affine, atol=1e-4)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("text", VOLUMES)
def test_the_file_does_not_depend_on_chunks(tmp_path, rng, suffix, text):
    frames, expected = make_case(text, rng, np.float64)
    files = []
    for size in (1, 3, 5):
        write(tmp_path / f"map{suffix}", make_template(expected.shape), text, frames, "uint16", size)
        files.append((tmp_path / f"map{suffix}").read_bytes())
    assert files[0] == files[1] == files[2]


def peak_of_writing(path, template, text, frames, repetitions):
    """Return the largest memory while frames are written repeatedly, as a fraction of the result."""
    tracemalloc.start()
    try:
        with FrameWriter(path, template, Axes(text), np.dtype("float32")) as writer:
            for _ in range(repetitions):
                writer.write(frames)
        return tracemalloc.get_traced_memory()[1] / (repetitions * frames.size * 4)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_written_as_they_come(tmp_path, rng, suffix):
    path = tmp_path / f"map{suffix}"
    frames = rng.random((10, 64, 64)).astype(np.float32)
    assert peak_of_writing(path, make_template((64, 64, 200)), "lateral depth elevation", frames, 20) < 0.5
    np.testing.assert_array_equal(read_stored(path)[:, :, 190:], frames.transpose(2, 1, 0))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("text", ["elevation lateral depth", "lateral depth -elevation"])
def test_frames_in_another_order_need_one_array(tmp_path, rng, suffix, text):
    frames = rng.random((10, 64, 64)).astype(np.float32)
    shape = (200, 64, 64) if text.startswith("elevation") else (64, 64, 200)
    assert peak_of_writing(tmp_path / f"map{suffix}", make_template(shape), text, frames, 20) < 1.5


@pytest.mark.parametrize("suffix", [*FORMATS, ".png"])
@pytest.mark.parametrize("text", ["lateral depth elevation", "elevation depth lateral"])
def test_an_exception_leaves_the_existing_file(tmp_path, rng, suffix, text):
    frames = rng.random((1 if suffix == ".png" else 4, 6, 7))
    shape = (7, 6, len(frames)) if text.startswith("lateral") else (len(frames), 6, 7)
    path = tmp_path / f"map{suffix}"
    path.write_bytes(b"an earlier result")

    def interrupt():
        with FrameWriter(path, make_template(shape), Axes(text), np.dtype("uint8")) as writer:
            writer.write(frames[:1])
            assert path.read_bytes() == b"an earlier result"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert path.read_bytes() == b"an earlier result"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path):
    (tmp_path / "map.mha").mkdir()
    with pytest.raises(OSError, match=r"map\.mha"):
        write(tmp_path / "map.mha", make_template((6, 7)), "depth lateral", np.zeros((1, 6, 7)))
    assert list(tmp_path.iterdir()) == [tmp_path / "map.mha"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 6, 7), "needs 4 frames, found 3"),
        ((0, 6, 7), "needs 4 frames, found 0"),
        ((5, 6, 7), "needs 4 frames, found 5"),
        ((4, 7, 6), r"needs frames of the shape \(frames, 6, 7\), found \(4, 7, 6\)"),
        ((6, 7), r"needs frames of the shape \(frames, 6, 7\), found \(6, 7\)"),
    ],
)
def test_wrong_numbers_and_shapes_of_frames_are_errors(tmp_path, suffix, shape, message):
    template = make_template((7, 6, 4))
    with pytest.raises(ValueError, match=message):
        write(tmp_path / f"map{suffix}", template, "lateral depth elevation", np.zeros(shape), size=9)
    assert not list(tmp_path.iterdir())


def test_a_2d_image_takes_exactly_one_frame(tmp_path):
    with pytest.raises(ValueError, match="needs 1 frames, found 2"):
        write(tmp_path / "map.png", make_template((6, 7)), "depth lateral", np.zeros((2, 6, 7)), "uint8")
    assert not list(tmp_path.iterdir())


def test_frames_outside_of_the_block_are_errors(tmp_path):
    writer = FrameWriter(tmp_path / "map.mha", make_template((6, 7)), Axes("depth lateral"), np.dtype("uint8"))
    with pytest.raises(ValueError, match="inside of a with block"):
        writer.write(np.zeros((1, 6, 7)))
    with writer:
        writer.write(np.zeros((1, 6, 7)))
    with pytest.raises(ValueError, match="inside of a with block"):
        writer.write(np.zeros((1, 6, 7)))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        ("map.png", (6, 7), "float32", "cannot contain values of type float32; expected uint8 or uint16"),
        ("map.mha", (6, 7), "float64", "cannot contain values of type float64; expected uint8 or uint16 or float32"),
        ("map.tif", (6, 7), "int16", "cannot contain values of type int16"),
        ("map.jpg", (6, 7), "uint8", "is not supported; expected one of"),
        ("map.png", (6, 7, 2), "uint8", "can only contain one frame, but the input has 2"),
        ("map.nii", (6, 7, 40_000), "uint8", r"NIfTI files do not support the shape \(6, 7, 40000\)"),
    ],
)
def test_formats_that_do_not_support_the_result_are_errors(tmp_path, name, shape, dtype, message):
    axes = Axes("depth lateral elevation" if len(shape) == 3 else "depth lateral")
    with pytest.raises(InputError, match=message):
        FrameWriter(tmp_path / name, make_template(shape), axes, np.dtype(dtype))
    assert not list(tmp_path.iterdir())


def test_axes_of_another_number_are_errors(tmp_path):
    with pytest.raises(InputError, match=r"the axes 'depth lateral' do not fit the input's shape \(6, 7, 2\)"):
        FrameWriter(tmp_path / "map.mha", make_template((6, 7, 2)), Axes("depth lateral"), np.dtype("uint8"))


@pytest.mark.parametrize("text", ["depth lateral elevation", "elevation depth lateral", "depth -elevation lateral"])
def test_a_volume_of_one_frame_can_become_a_picture(tmp_path, rng, text):
    frames = rng.random((1, 6, 7))
    shape = tuple({"depth": 6, "lateral": 7, "elevation": 1}[name] for name in Axes(text).names)
    write(tmp_path / "map.png", make_template(shape), text, frames, "uint16")
    np.testing.assert_allclose(read_image(tmp_path / "map.png").array / 65535, frames[0], atol=0.51 / 65535)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_values_beyond_the_ends_do_not_wrap_around(tmp_path, dtype):
    frames = np.full((1, 6, 7), 1.01, dtype=np.float32)
    frames[0, 0] = -0.01
    write(tmp_path / "map.png", make_template((6, 7)), "depth lateral", frames, dtype)
    array = read_image(tmp_path / "map.png").array
    assert (array[0] == 0).all()
    assert (array[1:] == np.iinfo(dtype).max).all()


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_tags_are_kept(tmp_path, rng, suffix):
    tags = {
        "Patient": "A 7",
        "Seq_Frame0000_Status": "a = b: c",
        "Two\nlines: x": "one\ntwo",
        "Empty": "",
        "ElementSpacing": "9 9 9",
        "NDims": "5",
        "ITK_InputFilterName": "other",
    }
    frames, expected = make_case("lateral depth elevation", rng)
    template = make_template(expected.shape, tags=tags, frames_per_second=24.5)
    write(tmp_path / f"map{suffix}", template, "lateral depth elevation", frames)
    image = sitk.ReadImage(str(tmp_path / f"map{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, expected)
    np.testing.assert_allclose(image.GetSpacing(), SPACING)
    expected_tags = {
        "Patient": "A 7",
        "Seq_Frame0000_Status": "a = b: c",
        "Two_lines_x": "one two",
        **{f"Seq_Frame{index:04d}_Timestamp": repr(index / 24.5) for index in range(expected.shape[2])},
    }
    # ITK adds these for every file of the format.
    added = ("ITK_", "NRRD_", "Modality")
    found = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith(added)}
    assert found == expected_tags
    assert read_image(tmp_path / f"map{suffix}").frames_per_second == pytest.approx(24.5)


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_a_spacing_without_world_coordinates_is_kept(tmp_path, rng, suffix):
    frames, expected = make_case("lateral depth elevation", rng)
    template = FileImage(expected, SPACING, np.eye(4))
    write(tmp_path / f"map{suffix}", template, "lateral depth elevation", frames)
    image = read_image(tmp_path / f"map{suffix}")
    np.testing.assert_allclose(image.spacing, SPACING)
    np.testing.assert_allclose(image.affine, np.diag([*SPACING, 1.0]), atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_an_upright_2d_image_keeps_its_spacing(tmp_path, rng, suffix):
    frames, expected = make_case("depth lateral", rng)
    affine = np.eye(4)[:, [2, 0, 1, 3]] * (0.5, 0.8, 1.0, 1.0)
    path = tmp_path / f"map{suffix}"
    write(path, FileImage(expected, (0.5, 0.8), affine), "depth lateral", frames)
    image = read_image(path)
    np.testing.assert_array_equal(image.array, expected)
    np.testing.assert_allclose(image.spacing, (0.5, 0.8), rtol=1e-6)


def test_a_sheared_affine_is_kept_without_a_contradicting_qform(tmp_path, rng):
    frames, expected = make_case("lateral depth elevation", rng)
    affine = np.diag([*SPACING, 1.0])
    affine[0, 1] = 0.4
    template = FileImage(expected, tuple(np.linalg.norm(affine[:3, :3], axis=0)), affine)
    write(tmp_path / "map.nii", template, "lateral depth elevation", frames)
    image = nibabel.load(tmp_path / "map.nii")
    np.testing.assert_allclose(image.affine, affine, atol=1e-6)
    np.testing.assert_allclose(image.header.get_zooms(), template.spacing, rtol=1e-6)
    assert image.get_qform(coded=True)[1] == 0


def test_large_tiff_files_have_64_bit_offsets(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("cm_lightning.io.writing.MAX_TIFF_BYTES", 100)
    frames, expected = make_case("lateral depth elevation", rng)
    write(tmp_path / "map.tif", make_template(expected.shape), "lateral depth elevation", frames)
    assert (tmp_path / "map.tif").read_bytes()[:4] == b"II\x2b\x00"
    np.testing.assert_array_equal(read_stored(tmp_path / "map.tif"), expected)
