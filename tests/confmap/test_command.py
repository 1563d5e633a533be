"""Maps of files, through the command line."""

import csv
import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver, Sector, find_insonified
from cm_lightning.io import read_image, write_geometry
from cm_lightning.main import main

SHAPE = (40, 36)


@pytest.fixture
def frames(rng):
    """Return five frames of speckle that becomes darker with depth, uint8, ``(frames, depth, lateral)``."""
    speckle = rng.rayleigh(40.0, (5, *SHAPE)) * np.exp(-np.arange(SHAPE[0]) / 30.0)[:, None]
    return np.clip(speckle, 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    return path


def confmap(*arguments):
    main(["confmap", *map(str, arguments)])


def rows_of(output):
    with (output / "confmap.csv").open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_pictures_of_a_folder(folder, frames, tmp_path, capsys):
    (folder / "deeper").mkdir()
    names = ["a.png", "b.png", "c.png", "deeper/a.png", "deeper/d.bmp"]
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    output = tmp_path / "out"
    confmap(folder, "--output", output, "--domain", "whole", "--alpha", "1", "--preview", "--certify")
    rows = rows_of(output)
    assert sorted(rows) == sorted(names)
    for name, frame in zip(names, frames, strict=True):
        row = rows[name]
        stored = read_image(output / row["output"]).array
        assert stored.dtype == np.uint16
        expected = ConfidenceMapSolver(alpha=1.0)(frame.astype(float))
        np.testing.assert_allclose(stored / 65535, expected, rtol=0, atol=1e-5)
        assert float(row["mean_confidence"]) == pytest.approx(expected.mean(), abs=1e-4)
        assert float(row["error_bound"]) < 1e-5
        assert (output / name).with_name(f"{(output / name).stem}_preview.png").is_file()
    assert "a.png: 40 x 36, whole (score 1.000), mean confidence 0." in capsys.readouterr().out


def test_volume_keeps_its_geometry(folder, frames, tmp_path, capsys):
    affine = np.array([[0.0, -0.5, 0, 3], [0.4, 0, 0, -2], [0, 0, 2.0, 1], [0, 0, 0, 1]])
    array = np.transpose(frames, (2, 1, 0))  # lateral, depth, elevation
    nibabel.save(nibabel.Nifti1Image(array, affine), folder / "scan.nii.gz")
    output = tmp_path / "out"
    confmap(folder / "scan.nii.gz", "--output", output, "--domain", "whole", "--preview")
    written = read_image(output / "scan.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    expected = ConfidenceMapSolver()(frames.astype(float))
    np.testing.assert_allclose(np.transpose(written.array, (2, 1, 0)), expected, rtol=0, atol=1e-5)
    assert "taken as 'lateral depth elevation'; --axes changes this" in capsys.readouterr().out
    with Image.open(output / "scan_preview.gif") as preview:
        assert preview.n_frames == 5

    confmap(folder / "scan.nii.gz", "--output", tmp_path / "pages", "--domain", "whole", "--format", "tif")
    pages = tifffile.imread(tmp_path / "pages" / "scan.tif")
    np.testing.assert_allclose(pages, expected, rtol=0, atol=1e-5)

    # The same frames with other axes and the probe at the bottom.
    turned = np.transpose(frames[:, ::-1], (1, 2, 0))
    nibabel.save(nibabel.Nifti1Image(turned, affine), folder / "turned.nii.gz")
    for options in (["--axes=-depth lateral elevation"], ["--axes", "depth lateral elevation", "--up", "bottom"]):
        again = tmp_path / options[-1].split()[0]
        confmap(folder / "turned.nii.gz", "--output", again, "--domain", "whole", *options)
        maps = read_image(again / "turned.nii.gz").array
        np.testing.assert_allclose(np.transpose(maps, (2, 0, 1))[:, ::-1], expected, rtol=0, atol=1e-5)


def test_a_loop_of_pictures_becomes_an_upright_sequence(folder, frames, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(folder / "loop.avi"), "w") as file:
        stream = file.add_stream("ffv1", rate=20)  # lossless
        stream.height, stream.width, stream.pix_fmt = *SHAPE, "gray"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        file.mux(stream.encode())
    output = tmp_path / "out"
    confmap(folder / "loop.avi", "--output", output, "--domain", "whole")
    expected = ConfidenceMapSolver()(frames.astype(float))
    viewer = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "loop.mha")))  # frames, rows, columns
    np.testing.assert_allclose(viewer, expected, rtol=0, atol=1e-5)
    written = read_image(output / "loop.mha")
    assert written.axes == "lateral depth elevation"
    assert written.frames_per_second == pytest.approx(20.0)


def test_a_geometry_file_serves_all_files(folder, frames, tmp_path):
    sector = Sector(-30.0, 18.0, 33.0, 66.0, -25.0, 25.0)
    write_geometry(tmp_path / "probe.json", sector, SHAPE)
    image = sitk.GetImageFromArray(frames)
    sitk.WriteImage(image, folder / "sweep.mha")
    Image.fromarray(frames[0]).save(folder / "frame.png")
    output = tmp_path / "out"
    confmap(folder, "--output", output, "--domain", tmp_path / "probe.json", "--axes", "lateral depth elevation")
    rows = rows_of(output)
    assert {row["geometry"] for row in rows.values()} == {"sector"}
    assert json.loads(rows["sweep.mha"]["parameters"])["inner_radius"] == 33.0
    masks = find_insonified(frames[0].astype(float), sector)
    expected = ConfidenceMapSolver()(frames[0].astype(float), masks.domain, masks.source, masks.sink)
    maps = read_image(output / "sweep.mha").array
    np.testing.assert_allclose(maps[:, :, 0].T, expected, rtol=0, atol=1e-5)


def test_bad_files_do_not_stop_others_and_a_second_call_goes_on(folder, frames, tmp_path, capsys):
    for name, frame in zip("abcd", frames, strict=False):
        Image.fromarray(frame).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:200])
    (folder / "empty.png").touch()
    nibabel.save(nibabel.Nifti1Image(np.full((9, 8, 3), np.nan), np.eye(4)), folder / "nan.nii")
    output = tmp_path / "out"
    arguments = (folder, tmp_path / "missing.png", "--output", output, "--domain", "whole")
    with pytest.raises(SystemExit) as exit_:
        confmap(*arguments)
    assert exit_.value.code == 1
    errors = capsys.readouterr().err
    for name in ("b.png", "empty.png", "nan.nii", "missing.png"):
        assert name in errors.split("files failed:")[1]
        assert rows_of(output)[name]["status"] == "failed"
    assert {path.name for path in output.iterdir()} == {"a.png", "c.png", "d.png", "confmap.csv"}

    times = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    Image.fromarray(frames[4]).save(folder / "b.png")
    for name in ("empty.png", "nan.nii"):
        (folder / name).unlink()
    Image.fromarray(frames[4]).save(folder / "c.png")  # changed
    confmap(folder, "--output", output, "--domain", "whole")
    assert "2 of 4 files were finished" in capsys.readouterr().out
    changed = {path.name for path in output.glob("*.png") if path.stat().st_mtime_ns != times.get(path.name)}
    assert changed == {"b.png", "c.png"}
    assert all(row["status"] == "ok" for name, row in rows_of(output).items() if name in ("a.png", "b.png", "c.png"))
    # Other settings need other maps.
    confmap(folder, "--output", output, "--domain", "whole", "--beta", "50")
    assert "finished" not in capsys.readouterr().out


def test_a_killed_run_goes_on(folder, frames, tmp_path):
    for number in range(12):
        array = np.transpose(np.tile(frames, (8, 3, 3)), (2, 1, 0))
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{number:02d}.nii.gz")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "cm_lightning", "confmap", str(folder), f"--output={output}", "--domain=whole"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("00.nii.gz")
    process.kill()
    process.communicate()
    finished = rows_of(output)
    assert 0 < len(finished) < 12
    times = {name: (output / row["output"]).stat().st_mtime_ns for name, row in finished.items()}
    for path in output.glob("*.nii.gz"):
        assert nibabel.load(path).get_fdata().shape == (108, 120, 40)
    confmap(folder, "--output", output, "--domain", "whole")
    rows = rows_of(output)
    assert len(rows) == 12
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert {path.name for path in output.iterdir()} == {*rows, "confmap.csv"}  # no remains
    assert times == {name: (output / rows[name]["output"]).stat().st_mtime_ns for name in times}


def test_interrupted_tables_are_read(folder, frames, tmp_path, capsys):
    Image.fromarray(frames[0]).save(folder / "a.png")
    output = tmp_path / "out"
    confmap(folder, "--output", output, "--domain", "whole")
    with (output / "confmap.csv").open("a") as table:
        table.write("b.png,b.png,ok,1")
    confmap(folder, "--output", output, "--domain", "whole")
    assert "1 of 1 files were finished" in capsys.readouterr().out
    assert sorted(rows_of(output)) == ["a.png"]


def test_equal_names_are_kept_apart(folder, frames, tmp_path):
    Image.fromarray(frames[0]).save(folder / "scan.png")
    Image.fromarray(frames[1]).save(folder / "scan.bmp")
    output = tmp_path / "out"
    confmap(folder, "--output", output, "--domain", "whole")
    assert {row["output"] for row in rows_of(output).values()} == {"scan_png.png", "scan_bmp.png"}


def test_folders_are_kept_apart(tmp_path, frames):
    for number, folder in enumerate(("first", "second", "other/first")):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(frames[number]).save(tmp_path / folder / "a.png")
    output = tmp_path / "out"
    confmap(tmp_path / "first", tmp_path / "second", "--output", output, "--domain", "whole")
    assert {row["output"] for row in rows_of(output).values()} == {"first/a.png", "second/a.png"}
    with pytest.raises(ValueError, match="would have the same map first/a"):
        confmap(tmp_path / "first", tmp_path / "other" / "first", "--output", output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--domain", "circle"], "domain must be one of whole, linear, convex, auto, or a geometry file"),
        (["--domain", "missing.json"], "missing.json does not exist"),
        (["--alpha", "-1"], "alpha must be a finite number of at least 0"),
        (["--domain", "convex", "--up", "left"], "--up left cannot be combined with --domain convex"),
        (["--axes", "depth sideways"], "axes must name each of"),
    ],
)
def test_bad_options(folder, frames, tmp_path, capsys, arguments, message):
    Image.fromarray(frames[0]).save(folder / "a.png")
    with pytest.raises((SystemExit, ValueError)) as raised:
        confmap(folder, "--output", tmp_path / "out", *arguments)
    assert message in f"{raised.value} {capsys.readouterr().err}"


def test_maps_never_replace_their_inputs(folder, frames, capsys):
    Image.fromarray(frames[0]).save(folder / "a.png")
    before = (folder / "a.png").read_bytes()
    with pytest.raises(SystemExit):
        confmap(folder, "--output", folder, "--domain", "whole")
    assert "would replace the file itself" in capsys.readouterr().err
    assert (folder / "a.png").read_bytes() == before


def test_an_empty_folder_is_one_sentence(folder, tmp_path):
    with pytest.raises(ValueError, match="contains no image files"):
        confmap(folder, "--output", tmp_path / "out")


def test_frames_on_their_side_are_noticed(real_data, tmp_path, capsys):
    frame = Image.open(real_data / "confidence_reference" / "femur_input.png").convert("L")
    frame.save(tmp_path / "upright.png")
    frame.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png")
    volume = np.stack([np.asarray(frame)] * 3)  # elevation, depth, lateral
    sitk.WriteImage(sitk.GetImageFromArray(volume), tmp_path / "volume.mha")
    output = tmp_path / "out"
    confmap(*tmp_path.glob("*.*"), "--output", output)
    rows = rows_of(output)
    assert "lie on their side" in rows["turned.png"]["remarks"]
    assert "lie on their side" not in rows["upright.png"]["remarks"] + rows["volume.mha"]["remarks"]
    confmap(tmp_path / "volume.mha", "--output", output, "--axes", "depth lateral elevation", "--domain", "whole")
    assert "lie on their side" in rows_of(output)["volume.mha"]["remarks"]
    confmap(tmp_path / "turned.png", "--output", output, "--up", "left")
    assert "lie on their side" not in rows_of(output)["turned.png"]["remarks"]
