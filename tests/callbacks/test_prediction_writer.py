"""Files of predictions, which have the geometry of their images and appear once they are complete."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from pytorch_lightning import Trainer

from cm_lightning.callbacks import PredictionWriter
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.errors import InputError
from cm_lightning.io import read_image
from cm_lightning.tasks import SegmentationTask
from cm_lightning.uncertainty import MCDropout

CLASSES = {"nerve": 2, "vessel": 300}
# An oblique plane in the world, with another voxel size along every axis.
AFFINE = np.array([[0.0, 0.3, 0.4, 5.0], [-0.2, 0.0, 0.0, -6.0], [0.0, -0.4, 0.3, 7.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (20, 30, 12)


def network(dims, seed=0, **options):
    torch.manual_seed(seed)
    settings = {"channels": [4, 8], "strides": [2], "dropout": 0.2}
    return SegmentationTask(CLASSES, dims, network_options=settings, **options).eval()


def predict(task, path, folder, data=None, **writer):
    """Predict the images at a path."""
    dims = task.hparams["spatial_dims"]
    sizes = {name: task.hparams[name] for name in ("spatial_size", "patch_size")}
    axes = "depth lateral" if dims == 2 else "lateral -depth elevation"
    module = UltrasoundDataModule(
        path,
        CLASSES,
        spatial_dims=dims,
        axes=axes,
        predict_path=path,
        cache_dir=folder / "cache",
        **sizes,
        **(data or {}),
    )
    writer = PredictionWriter(folder / "predictions", **writer)
    trainer = Trainer(
        logger=False,
        callbacks=[writer],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.predict(task, module, return_predictions=False)
    return folder / "predictions"


def speckle(rng, shape):
    return rng.integers(1, 255, shape, dtype=np.uint8)


def write_volume(path, array):
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)
    if not path.name.endswith(".nii.gz"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("label_format", ["nii.gz", "seg.nrrd"])
def test_volumes_keep_their_grid(tmp_path, rng, suffix, label_format):
    nibabel.save(nibabel.Nifti1Image(speckle(rng, SHAPE), AFFINE), tmp_path / "source.nii.gz")
    images = tmp_path / "images"
    images.mkdir()
    source = sitk.ReadImage(str(tmp_path / "source.nii.gz"))
    sitk.WriteImage(source, str(images / f"scan{suffix}"))
    folder = predict(network(3, spatial_size=[8, 8, 8]), images, tmp_path, format=label_format)
    names = {path.name for path in folder.iterdir()}
    maps = {f"scan_{name}.nii.gz" for name in ("probabilities", "entropy", "confidence")}
    assert names == {*maps, f"scan_segmentation.{label_format}"}
    segmentation = read_image(folder / f"scan_segmentation.{label_format}", is_label=True)
    for result in (segmentation, *(read_image(folder / f"scan_{name}.nii.gz") for name in ("entropy", "confidence"))):
        assert result.array.shape == SHAPE
        np.testing.assert_allclose(result.affine, AFFINE, atol=1e-5)
        np.testing.assert_allclose(result.spacing, (0.2, 0.5, 0.5), rtol=1e-5)
    itk = sitk.ReadImage(str(folder / f"scan_segmentation.{label_format}"))
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(itk, get)(), getattr(source, get)(), atol=1e-5)
    assert set(np.unique(segmentation.array)) <= {0, 2, 300}
    probabilities = np.asarray(nibabel.load(folder / "scan_probabilities.nii.gz").dataobj)
    assert probabilities.shape == (*SHAPE, 3)
    np.testing.assert_array_equal(np.array([0, 2, 300])[probabilities.argmax(axis=-1)], segmentation.array)
    confidence = read_image(folder / "scan_confidence.nii.gz").array
    assert confidence[:, -1].mean() > 0.9 > 0.1 > confidence[:, 0].mean()  # the probe is at the end of the depth axis
    if label_format == "seg.nrrd":
        tags = {key: itk.GetMetaData(key) for key in itk.GetMetaDataKeys()}
        assert (tags["Segment1_Name"], tags["Segment1_LabelValue"]) == ("vessel", "300")
        assert len(tags["Segment1_Color"].split()) == 3
        assert tags["Segment0_Extent"] == "0 19 0 29 0 11"


def test_integer_maps_are_read_as_their_values(tmp_path, rng):
    images = tmp_path / "images"
    images.mkdir()
    nibabel.save(nibabel.Nifti1Image(speckle(rng, SHAPE), AFFINE), images / "scan.nii.gz")
    task = network(3, spatial_size=[8, 8, 8], mc_dropout=MCDropout(3))
    exact = predict(task, images, tmp_path / "a") / "mc_dropout"
    small = predict(task, images, tmp_path / "b", dtype="uint16") / "mc_dropout"
    for path in exact.iterdir():
        values, rounded = (nibabel.load(file / path.name) for file in (exact, small))
        largest = float(values.header["cal_max"]) or 1.0
        np.testing.assert_allclose(rounded.dataobj, values.dataobj, atol=largest / 2**16, rtol=0)
        assert float(rounded.header["cal_max"]) == float(values.header["cal_max"])


@pytest.mark.parametrize("patch", [[16, 16, 8], [32, 16, 16]], ids=str)
@pytest.mark.parametrize("data", [{}, {"spacing": [0.4, 0.25, 0.6]}, {"confidence_mode": "on_the_fly"}], ids=str)
def test_windows_over_slabs_equal_those_over_the_whole_volume(tmp_path, rng, patch, data):
    images = tmp_path / "images"
    images.mkdir()
    nibabel.save(nibabel.Nifti1Image(speckle(rng, SHAPE), AFFINE), images / "scan.nii.gz")
    task = network(3, patch_size=patch)
    folder = predict(task, images, tmp_path, data)
    streamed = np.asarray(nibabel.load(folder / "scan_probabilities.nii.gz").dataobj)
    original = SegmentationTask.native_parts
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            SegmentationTask,
            "native_parts",
            lambda self, batch, compute, by_slabs=True: original(self, batch, compute, by_slabs=False),
        )
        predict(task, images, tmp_path, data)
    whole = np.asarray(nibabel.load(folder / "scan_probabilities.nii.gz").dataobj)
    np.testing.assert_allclose(streamed, whole, atol=1e-5)


def test_pictures_keep_their_orientation(tmp_path, rng):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(speckle(rng, (24, 40))).save(images / "a.png")
    nibabel.save(nibabel.Nifti1Image(speckle(rng, (24, 40)), np.eye(4)), images / "a.nii.gz")  # of the same stem
    Image.fromarray(speckle(rng, (24, 40))).save(images / "b.png")
    task = network(2, spatial_size=[16, 16], network="UNet")
    folder = predict(task, images, tmp_path, {"layout": "folder"})
    names = {path.name for path in folder.iterdir() if "segmentation" in path.name}
    assert names == {"a.png_segmentation.png", "a.nii.gz_segmentation.nii.gz", "b_segmentation.png"}
    segmentation = Image.open(folder / "b_segmentation.png")
    assert segmentation.size == (40, 24)
    overlay = np.asarray(Image.open(folder / "b_overlay.png")).astype(float)
    image = np.asarray(Image.open(images / "b.png")).astype(float)[..., None]
    # Values above 255 need 16 bits, for which PNG files have no colour table.
    assert segmentation.mode == "I;16"
    classes = np.asarray(segmentation)
    assert set(np.unique(classes)) > {0}
    np.testing.assert_allclose(overlay[classes == 0], image[classes == 0].repeat(3, axis=1), atol=1)
    red = np.array([228, 26, 28])
    np.testing.assert_allclose(overlay[classes == 2], 0.6 * image[classes == 2] + 0.4 * red, atol=1.5)
    # Files of volumes begin with x, so that viewers show them upright.
    confidence = nibabel.load(folder / "b_confidence.nii.gz")
    assert confidence.shape == (40, 24)
    values = np.asarray(confidence.dataobj)
    assert values[:, 0].mean() > 0.9 > 0.1 > values[:, -1].mean()
    np.testing.assert_allclose(confidence.affine, np.diag([-1, -1, 1, 1]))
    assert nibabel.load(folder / "a.nii.gz_confidence.nii.gz").shape == (24, 40)


def test_an_error_leaves_earlier_files_and_no_partial_ones(tmp_path, rng, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    nibabel.save(nibabel.Nifti1Image(speckle(rng, SHAPE), AFFINE), images / "scan.nii.gz")
    task = network(3, spatial_size=[8, 8, 8])
    folder = predict(task, images, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "other_segmentation.nii.gz").write_bytes(b"of another case")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cm_lightning.io.writing._RawSink._put", full)
        with pytest.raises(InputError, match=r"scan in .* cannot be written: No space left on device"):
            predict(task, images, tmp_path)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == {**before, "other_segmentation.nii.gz": b"of another case"}
    # Files of an earlier prediction with other settings are removed once there is a new one.
    predict(task, images, tmp_path, maps=False)
    assert {path.name for path in folder.iterdir()} == {"scan_segmentation.nii.gz", "other_segmentation.nii.gz"}
