"""Predictions in Python, ensembles and mirroring, compared with the files that ``predict`` writes."""

import shutil

import nibabel
import numpy as np
import pytest
import torch

from cm_lightning.confidence import ProbeGeometry, Rectangle
from cm_lightning.inference import Predictor, load_task
from cm_lightning.io import read_image
from cm_lightning.main import main
from cm_lightning.uncertainty import MCDropout


def written(folder, case):
    return {
        path.name[len(case) + 1 : -7]: np.asarray(nibabel.load(path).dataobj)
        for path in folder.glob(f"{case}_*.nii.gz")
    }


@pytest.fixture
def test_image(trained, run_folder, muscle_set):
    """Return the first test case of a trained run with its predictions, as files and as an image."""
    main(["predict", *trained, "--ckpt_path=best"])
    path = sorted((run_folder / "predictions").glob("*_segmentation.nii.gz"))[0]
    case = path.name.removesuffix("_segmentation.nii.gz")
    (file,) = muscle_set.glob(f"*/{case.removesuffix('_x1')}/x1.mha")
    return written(run_folder / "predictions", case), read_image(file), case


def test_equals_the_files_of_predict(test_image, run_folder):
    files, image, _ = test_image
    predictor = Predictor.from_checkpoint(run_folder / "checkpoints" / "best.ckpt", device="cpu")
    result = predictor(image.array, image.spacing, axes="lateral depth elevation")
    np.testing.assert_array_equal(result.segmentation, files["segmentation"])
    np.testing.assert_allclose(np.moveaxis(result.probabilities, 0, -1), files["probabilities"], atol=1e-6)
    np.testing.assert_allclose(result.entropy, files["entropy"], atol=1e-6)
    np.testing.assert_allclose(result.confidence, files["confidence"], atol=1e-6)
    assert result.classes == {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}

    # The same image with the axes of the network.
    upright = np.swapaxes(image.array, 0, 1)
    turned = predictor(upright, (image.spacing[1], image.spacing[0], image.spacing[2]))
    np.testing.assert_array_equal(turned.segmentation, np.swapaxes(result.segmentation, 0, 1))
    # Another insonified region changes the map.
    region = Rectangle(4, 16, 0, 24)
    moved = predictor(upright, geometry=ProbeGeometry("shape", region))
    assert not np.allclose(moved.confidence, turned.confidence)


def test_ensemble_and_mirroring_average_probabilities(test_image, trained, run_folder):
    _, image, case = test_image
    checkpoints = run_folder / "checkpoints"
    other = torch.load(checkpoints / "best.ckpt", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    other["state_dict"] = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in other["state_dict"].items()
    }
    torch.save(other, checkpoints / "other.ckpt")
    axes, files = "lateral depth elevation", [checkpoints / "best.ckpt", checkpoints / "other.ckpt"]

    def probabilities(paths, volume=image.array, **options):
        return Predictor.from_checkpoint(paths, device="cpu", **options)(volume, image.spacing, axes).probabilities

    single = [probabilities(path) for path in files]
    # Logits are resized for a single network, and logarithms of mean probabilities for an ensemble.
    np.testing.assert_allclose(probabilities(files), (single[0] + single[1]) / 2, atol=0.02)
    mirrored = probabilities(files[0], image.array[::-1])[:, ::-1]
    averaged = probabilities(files[0], mirroring=["lateral"])
    np.testing.assert_allclose(averaged, (single[0] + mirrored) / 2, atol=0.02)
    np.testing.assert_allclose(
        averaged, probabilities(files[0], image.array[::-1], mirroring=["lateral"])[:, ::-1], atol=1e-5
    )
    assert not np.allclose(averaged, single[0], atol=1e-3)

    main(["predict", *trained, "--ensemble", *map(str, files), "--model.mirroring=[lateral]"])
    both = written(run_folder / "predictions" / "ensemble_mirrored", case)
    expected = probabilities(files, mirroring=["lateral"])
    np.testing.assert_allclose(np.moveaxis(expected, 0, -1), both["probabilities"], atol=1e-5)
    assert "segmentation" in written(run_folder / "predictions", case)  # the plain prediction is still there


def test_ensembles_do_not_predict_cases_of_their_training(trained, run_folder, muscle_set, tmp_path, capsys):
    second = tmp_path / "outputs" / "muscle_2ch" / "fold1"
    shutil.copytree(run_folder, second)
    checkpoint = torch.load(second / "checkpoints" / "best.ckpt", weights_only=True)
    trained_on = checkpoint["UltrasoundDataModule"]["trained_on"]
    assert len(trained_on) == 8  # training and validation cases
    images = tmp_path / "images"
    images.mkdir()
    case = next(iter(trained_on))
    (file,) = muscle_set.glob(f"*/{case.removesuffix('_x1')}/x1.mha")
    shutil.copy(file, images / "renamed.mha")
    ensemble = ["predict", *trained, f"--ensemble={second.parent}"]
    with pytest.raises(ValueError, match=rf"renamed.mha was used to train or select .* \(its case {case}"):
        main([*ensemble, f"--data.predict_path={images}"])
    assert not (run_folder / "predictions").exists()
    main(ensemble)  # its test cases
    assert len(list((run_folder / "predictions" / "ensemble").glob("*_segmentation.nii.gz"))) == 3

    with pytest.raises(ValueError, match="--ensemble needs at least two checkpoints, found 1"):
        main(["predict", *trained, f"--ensemble={second}"])
    with pytest.raises(SystemExit, match="2"):  # an error of the command line
        main([*ensemble, "--ckpt_path=best"])
    assert "--ensemble and --ckpt_path cannot be combined" in capsys.readouterr().err
    checkpoint["hyper_parameters"]["classes"] = {"soleus": 100, "gastrocnemius_medialis": 150, "tibialis": 200}
    torch.save(checkpoint, second / "checkpoints" / "best.ckpt")
    with pytest.raises(ValueError, match="expected the same classes in an ensemble"):
        main(ensemble)


def test_mc_dropout_returns_its_maps(trained, run_folder):
    checkpoint = run_folder / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["network_options"] = {**(content["hyper_parameters"]["network_options"] or {})}
    predictor = Predictor.from_checkpoint(checkpoint, device="cpu", mc_dropout=MCDropout(3, segmentations=2))
    result = predictor(np.random.default_rng(0).integers(0, 255, (16, 24, 16), np.uint8))
    assert {"expected_entropy", "mutual_information", "variance", "votes", "samples"} <= result.maps.keys()
    np.testing.assert_allclose(result.maps["votes"].sum(axis=0), 3, rtol=1e-5)


def test_invalid_checkpoints_and_images_are_one_sentence(trained, run_folder, tmp_path):
    best = run_folder / "checkpoints" / "best.ckpt"
    for name, content, message in (
        ("missing", None, "does not exist"),
        ("empty", b"", "is empty"),
        ("page", b"<!DOCTYPE html><html>", "is not a checkpoint"),
        ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        ("cut", best.read_bytes()[:20_000], "is not a checkpoint, or is damaged"),
    ):
        path = tmp_path / f"{name}.ckpt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            Predictor.from_checkpoint(path)
        assert str(raised.value).count("\n") == 0
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match="contains no settings of a network"):
        load_task(tmp_path / "weights.ckpt")

    predictor = Predictor.from_checkpoint(best, device="cpu")
    image = np.random.default_rng(0).random((16, 24, 16))
    for wrong, spacing, message in (
        (image[0], None, "expected 3 of both"),
        (np.zeros_like(image), None, "is constant"),
        (np.full_like(image, np.nan), None, "NaN or infinite"),
        (image + 1j, None, "complex numbers"),
        (image, (1.0, 0.0, 1.0), "spacing must be 3 positive numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            predictor(wrong, spacing)


def test_checkpoints_of_earlier_versions_use_the_settings_of_their_run(trained, run_folder, test_image):
    files, image, _ = test_image
    best = run_folder / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    del content["UltrasoundDataModule"]
    torch.save(content, best)
    result = Predictor.from_checkpoint(best, device="cpu")(image.array, image.spacing, "lateral depth elevation")
    np.testing.assert_array_equal(result.segmentation, files["segmentation"])
    (run_folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match="does not contain the settings of its data"):
        load_task(best)
