"""Videos, written by PyAV."""

import numpy as np
import pytest

from cm_lightning.errors import InputError
from cm_lightning.io import read_image

av = pytest.importorskip("av")


def save(path, frames, codec="ffv1", pixels="gray", rate=20):
    """Write frames, ``(frames, rows, columns[, colours])``, to a video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24" if frame.ndim == 3 else "gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def frames():
    rows, columns = np.mgrid[:32, :48]
    return np.stack([rows * 3 + columns * 2 + 5 * index for index in range(5)]).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_grey_frames_of_lossless_videos_are_exact(suffix, frames, tmp_path):
    image = read_image(save(tmp_path / f"a.{suffix}", frames))
    np.testing.assert_array_equal(image.array, np.moveaxis(frames, 0, -1))
    assert (image.axes, image.spacing, image.frames_per_second) == ("depth lateral elevation", None, 20)


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("avi", "mjpeg")])
def test_compressed_videos_are_read(suffix, codec, frames, tmp_path):
    image = read_image(save(tmp_path / f"a.{suffix}", frames, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p"))
    assert image.array.shape == (32, 48, 5)
    assert np.abs(image.array - np.moveaxis(frames, 0, -1).astype(int)).mean() < 5


def test_colours_become_grey_and_colour_labels_are_refused(tmp_path):
    colours = np.full((3, 8, 6, 3), (200, 100, 50), np.uint8)
    path = save(tmp_path / "a.mkv", colours, pixels="bgr0")
    np.testing.assert_array_equal(read_image(path).array, np.full((8, 6, 3), 124))
    with pytest.raises(InputError, match="contains colours"):
        read_image(path, is_label=True)


def test_damaged_videos_raise_one_sentence(frames, tmp_path):
    data = save(tmp_path / "a.mp4", frames, "libx264", "yuv420p").read_bytes()
    for name, content in {"cut.mp4": data[: len(data) // 2], "text.avi": b"text" * 99, "nothing.mkv": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            InputError, match=rf"{name} (cannot be read as a video|is empty|contains no video)"
        ) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)
    data = save(tmp_path / "b.avi", np.repeat(frames, 20, axis=0)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut.avi (is damaged|cannot be read)"):
        read_image(tmp_path / "cut.avi")


def test_files_without_a_video_are_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a.mkv contains no video stream; expected a video"):
        read_image(tmp_path / "a.mkv")


def test_without_pyav_the_extra_is_named(frames, tmp_path, monkeypatch):
    path = save(tmp_path / "a.avi", frames)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"needs PyAV; install cm_lightning\[video\]"):
        read_image(path)
