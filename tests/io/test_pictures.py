"""Pictures as different programs write them."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cm_lightning.errors import InputError
from cm_lightning.io import read_image


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, (6, 9)).astype(np.uint8)


def read(path, **options):
    return read_image(path, **options).array


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_grey_pictures_keep_their_values(suffix, grey, tmp_path):
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(image.array, grey)
    assert image.array.dtype == np.uint8
    assert (image.axes, image.spacing, image.rows_first) == ("depth lateral", None, True)
    np.testing.assert_array_equal(image.affine, np.eye(4))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<f4", ">f4", "<u4", "<i4"])
def test_values_of_tiff_files_are_native_numbers(dtype, grey, tmp_path):
    values = grey.astype(dtype) * np.array(257, dtype)
    if dtype == "<u4":
        values[0, 0] = 2**32 - 2
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">" if ">" in dtype else "<")
    array = read(tmp_path / "a.tif")
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(array, values)


def test_pictures_of_16_bits_keep_their_values(grey, tmp_path):
    values = grey.astype(np.uint16) * 200 + 3
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), values)


def test_colours_palettes_and_alpha_become_grey(tmp_path):
    colours = np.full((2, 3, 3), (200, 100, 50), np.uint8)
    expected = np.full((2, 3), 124)
    picture = Image.fromarray(colours)
    for name, converted in {
        "rgb.png": picture,
        "rgba.png": picture.convert("RGBA"),
        "palette.png": picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4),
        "palette.gif": picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=4),
    }.items():
        converted.save(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name), expected, err_msg=name)
    transparent = np.dstack([colours, np.zeros((2, 3), np.uint8)])
    Image.fromarray(transparent).save(tmp_path / "transparent.png")
    np.testing.assert_array_equal(read(tmp_path / "transparent.png"), expected)
    Image.fromarray(np.dstack([expected, expected * 0]).astype(np.uint8), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read(tmp_path / "la.png"), expected)
    Image.fromarray(np.full((2, 3), 9, np.uint8)).convert("CMYK").save(tmp_path / "cmyk.tif")
    np.testing.assert_array_equal(read(tmp_path / "cmyk.tif"), 9)


def test_palette_with_transparency_becomes_grey(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([200, 100, 50, 255, 255, 255])
    picture.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), [[124, 255]])


def test_bilevel_pictures_are_black_and_white_and_labels_0_and_1(tmp_path):
    mask = np.array([[True, False], [False, True]])
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(mask).save(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name), mask * 255)
        np.testing.assert_array_equal(read(tmp_path / name, is_label=True), mask)


def test_labels_with_few_bits_keep_their_stored_values(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    picture.putpalette([0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255])
    picture.save(tmp_path / "palette.png", bits=2)
    np.testing.assert_array_equal(read(tmp_path / "palette.png", is_label=True), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(read(tmp_path / "palette.png"), [[0, 85, 170, 255]])
    # The same file as grey values of two bits: the type of the colours is 0, and there is no palette.
    data = (tmp_path / "palette.png").read_bytes()
    chunks, position = [data[:8]], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            body = body[:9] + b"\0" + body[10:]
        if kind != b"PLTE":
            chunks.append(struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
        position += 12 + length
    (tmp_path / "grey.png").write_bytes(b"".join(chunks))
    np.testing.assert_array_equal(read(tmp_path / "grey.png", is_label=True), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(read(tmp_path / "grey.png"), [[0, 85, 170, 255]])


def test_colour_labels_are_refused_unless_they_are_grey(tmp_path, grey):
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png", is_label=True), grey)
    Image.fromarray(np.dstack([grey, grey * 0, grey * 0])).save(tmp_path / "red.png")
    with pytest.raises(InputError, match=r"The label .*red.png contains colours, which have no unique value; expected"):
        read(tmp_path / "red.png", is_label=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_pictures_are_turned_as_exif_states(orientation, suffix, tmp_path):
    upright = np.arange(16 * 32, dtype=np.uint8).reshape(16, 32) // 2
    # Transformation of the stored picture, by which viewers show it upright.
    shown = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    np.testing.assert_allclose(read(tmp_path / f"a.{suffix}"), shown(upright), atol=2 if suffix == "jpg" else 0)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png"])
def test_pages_are_frames(suffix, rng, tmp_path):
    pages = [Image.fromarray(rng.integers(0, 256, (6, 9)).astype(np.uint8)) for _ in range(4)]
    options = {} if suffix == "tif" else {"duration": 40}
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:], **options)
    image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(image.array, np.stack([np.asarray(page) for page in pages], axis=-1))
    assert image.axes == "depth lateral elevation"
    assert image.frames_per_second == (None if suffix == "tif" else 25)


def test_pages_of_different_sizes_are_refused(tmp_path):
    pages = [Image.new("L", size) for size in ((4, 5), (2, 3))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"a.tif has pages of different sizes or types"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.png", b"hello"),
        ("nifti.tif", b"\0" * 400),
        ("header.bmp", b"BM" + b"\xff" * 60),
        ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ],
)
def test_files_that_are_no_pictures_raise_one_sentence(name, data, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name} cannot be read as a picture \(.*\): .*\.$") as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "jpg"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 0.9), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_pictures_raise_an_input_error_or_keep_their_size(suffix, share, byte, cut, tmp_path):
    array = np.random.default_rng(1).integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / f"ok.{suffix}")
    data = bytearray((tmp_path / f"ok.{suffix}").read_bytes())
    place = int(share * len(data))
    if cut:
        data = data[:place]
    else:
        data[place] = byte
    (tmp_path / f"bad.{suffix}").write_bytes(bytes(data))
    try:
        result = read(tmp_path / f"bad.{suffix}")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    # Only PNG files have checksums of their pixels; damage within the pixels of other formats cannot be found.
    assert not cut
    if suffix == "png" and result.shape == array.shape:
        np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("dtype", ["i1", "i2", "f2", "f8", "u8", "i8"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_types_that_pillow_does_not_know_are_read(dtype, orientation, grey, tmp_path):
    values = (grey // 2).astype(dtype) - (np.array(5, dtype) if dtype != "u8" else 0)
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=tags)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, np.rot90(values, {1: 0, 3: 2, 6: -1}[orientation]))
    assert image.axes == "depth lateral"
    # Pillow has no type for signed numbers of 16 bits, and widens them.
    assert image.array.dtype == dtype


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_of_16_bits_keep_their_precision_in_tiff_files(planes, tmp_path):
    colours = np.full((2, 4, 3), (200, 100, 50), np.uint16)
    data = colours if planes == "contig" else np.moveaxis(colours, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planes)
    array = read(tmp_path / "a.tif")
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array, np.full((2, 4), 124))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_is_large_in_every_tiff_file(dtype, grey, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", grey.astype(dtype), photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.iinfo(dtype).max - grey.astype(dtype))


def test_pages_of_doubles_are_frames(rng, tmp_path):
    frames = rng.random((4, 6, 9))
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.moveaxis(frames, 0, -1))


def test_png_colours_of_16_bits_are_refused(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(12))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a.png has colours of 16 bits, which are not supported in PNG files"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_truncated_pages_are_found_everywhere(byteorder, rng, tmp_path):
    frames = rng.integers(0, 256, (5, 12, 16)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder) as writer:
        for frame in frames:
            writer.write(frame, compression="zlib", metadata=None)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.moveaxis(frames, 0, -1))
    data = (tmp_path / "a.tif").read_bytes()
    for length in range(8, len(data) - 8, 41):
        (tmp_path / "b.tif").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"b.tif"):
            read(tmp_path / "b.tif")


def test_announced_rows_without_data_are_refused_at_once(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((9, 8, 3), np.uint16), photometric="rgb", compression="deflate", rowsperstrip=9)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(9 * 100)
    with pytest.raises(InputError, match=r"a\.tif is damaged: a page has 1 of its 100 strips or tiles"):
        read_image(path)
