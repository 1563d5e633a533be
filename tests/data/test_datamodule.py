"""Data module: confidence maps of whole frames, folds, caches, patches and controls."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver, Rectangle, Sector
from cm_lightning.data import Augmentation, UltrasoundDataModule
from cm_lightning.data.cases import read_case
from cm_lightning.data.phantom import Phantom
from cm_lightning.data.phantom.anatomy import MUSCLE_CLASSES, THYROID_CLASSES
from cm_lightning.data.reading import CaseReader
from cm_lightning.io import write_geometry

ROTATE = Augmentation(gain=3.0, rotation=10.0)
NO_AUGMENTATION = Augmentation(gain=0.0, time_gain=0.0, speckle=0.0, rotation=0.0, scaling=0.0, elastic=0.0)


def module(root: Path, folder: Path, **arguments) -> UltrasoundDataModule:
    settings = {"classes": MUSCLE_CLASSES, "spatial_size": [16, 16, 8], "cache_dir": folder / "cache", "batch_size": 2}
    return UltrasoundDataModule(root, **{**settings, **arguments})


def set_training(data: UltrasoundDataModule) -> None:
    data.trainer = SimpleNamespace(training=True, state=SimpleNamespace(fn="fit"))


def test_native_maps_are_computed_for_whole_frames_at_file_resolution(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path, spatial_size=[16, 24, 16])  # the size of the files
    data.prepare_data()
    data.setup("fit")
    case = data.cases_of("train")[0]
    sample = data.training_set[0]
    assert sample["case"] == case.id
    image = read_case(case, data.axes, data.classes).image
    expected = ConfidenceMapSolver()(np.moveaxis(image, 2, 0).astype(np.float64))
    np.testing.assert_allclose(sample["confidence"][0].movedim(2, 0), expected, atol=1e-5)


def test_cached_maps_depend_on_files_and_parameters(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path)
    data.prepare_data()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "confidence").iterdir()}
    assert len(files) == len(data.cases)
    module(muscle_set, tmp_path).prepare_data()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "confidence").iterdir()} == files
    module(muscle_set, tmp_path, solver=ConfidenceMapSolver(beta=400.0)).prepare_data()
    assert len(list((tmp_path / "cache" / "confidence").iterdir())) == 2 * len(files)


def test_shuffled_control_uses_maps_of_other_patients(muscle_set, tmp_path):
    plain, shuffled = (module(muscle_set, tmp_path, confidence_source=source) for source in ("solver", "shuffled"))
    maps = {}
    for data in (plain, shuffled):
        data.prepare_data()
        data.setup("fit")
        data.setup("test")
        sets = [data.training_set, *(loader.dataset for loader in (data.val_dataloader(), data.test_dataloader()))]
        maps[data] = {sample["case"]: (sample["patient"], sample["confidence"]) for part in sets for sample in part}
    assert len(maps[plain]) == len(plain.cases)
    for case, (patient, confidence) in maps[shuffled].items():
        donors = [donor for donor, (_, donor_map) in maps[plain].items() if torch.equal(donor_map, confidence)]
        assert donors
        assert case not in donors
        assert patient not in {maps[plain][donor][0] for donor in donors}
    # The draw depends only on the seed of the split.
    repeated = module(muscle_set, tmp_path, confidence_source="shuffled")
    repeated.setup("fit")
    assert torch.equal(repeated.training_set[0]["confidence"], shuffled.training_set[0]["confidence"])


def test_depth_control_replaces_the_map_without_the_solver(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path, confidence_source="depth")
    data.prepare_data()
    assert not (tmp_path / "cache" / "confidence").exists()
    data.setup("fit")
    confidence = data.training_set[0]["confidence"]
    torch.testing.assert_close(confidence[0, :, 3, 5], torch.linspace(1, 0, 16))
    with pytest.raises(ValueError, match=r"depth is prepared once per case and needs data.confidence_mode native"):
        module(muscle_set, tmp_path, confidence_source="depth", confidence_mode="on_the_fly")


def test_interrupted_computation_leaves_no_map(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path)
    cache = data.maps.cache
    case = data.cases[0]
    read = CaseReader(data.axes, data.classes).read(case)
    next(cache.compute(case.image, read.arrays.image, read.geometry))  # interrupted
    assert not cache.path(case.image).exists()
    list(cache.compute(case.image, read.arrays.image, read.geometry))
    assert cache.path(case.image).exists()


def test_on_the_fly_maps_are_computed_before_geometric_augmentation(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path, confidence_mode="on_the_fly", augmentation=ROTATE)
    data.prepare_data()
    assert not (tmp_path / "cache" / "confidence").exists()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))

    data.trainer = SimpleNamespace(training=False)
    plain = data.on_after_batch_transfer(batch, 0)
    frames = batch["image"].movedim(-1, 2).double()
    np.testing.assert_allclose(plain["confidence"].movedim(-1, 2), ConfidenceMapSolver()(frames), atol=1e-5)
    assert torch.equal(plain["image"], batch["image"])

    set_training(data)
    torch.manual_seed(5)
    augmented = data.on_after_batch_transfer(batch, 0)
    torch.manual_seed(5)
    intensity = ROTATE.intensity(batch)
    intensity["confidence"] = ConfidenceMapSolver()(intensity["image"].movedim(-1, 2)).movedim(2, -1)
    expected = ROTATE.geometry(intensity)
    for key in ("image", "confidence", "label"):
        assert torch.equal(augmented[key], expected[key])
    assert data.solved_frames == 2 * 2 * 8


def test_patches_are_cut_from_maps_of_whole_frames(muscle_set, tmp_path):
    data = module(
        muscle_set,
        tmp_path,
        spatial_size=None,
        patch_size=[8, 12, 32],
        patches_per_case=3,
        foreground=1.0,
        augmentation=NO_AUGMENTATION,
    )
    data.prepare_data()
    data.setup("fit")
    set_training(data)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    # Images are padded along elevation, and every patch is centred on a labelled voxel.
    assert batch["image"].shape == (6, 1, 8, 12, 32)
    assert (batch["label"].flatten(1).amax(dim=1) > 0).all()
    whole_maps = {sample["case"]: sample["confidence"] for sample in data.training_set}
    for case, patch in zip(batch["case"], batch["confidence"], strict=True):
        middle = patch[0, :, :, 8:24]
        differences = [
            (whole_maps[case][0, i : i + 8, j : j + 12] - middle).abs().max()
            for i in range(whole_maps[case].shape[1] - 7)
            for j in range(whole_maps[case].shape[2] - 11)
        ]
        assert min(differences) == 0


def test_common_spacing_preserves_the_extent(muscle_set, tmp_path):
    data = module(
        muscle_set, tmp_path, spatial_size=None, patch_size=[8, 8, 8], spacing=[1.5, 4.8, 6.0], confidence_mode="none"
    )
    data.setup("fit")
    sample = data.training_set[0]
    assert sample["image"].shape == (1, 32, 12, 16)
    np.testing.assert_allclose(sample["spacing"], [1.5, 4.8, 6.0])


def test_batches_are_reproducible(muscle_set, tmp_path):
    def first_batch() -> torch.Tensor:
        data = module(muscle_set, tmp_path, augmentation=ROTATE, spatial_size=None, patch_size=[8, 8, 8])
        data.prepare_data()
        data.setup("fit")
        set_training(data)
        torch.manual_seed(7)
        return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)["image"]

    assert torch.equal(first_batch(), first_batch())


def test_thyroid_layout(thyroid_set, tmp_path):
    data = module(thyroid_set, tmp_path, layout="segthy", classes=THYROID_CLASSES, confidence_mode="none")
    data.prepare_data()
    data.setup("fit")
    assert set(data.training_set[0]["label"].unique().tolist()) <= {0, 1, 2, 3}


@pytest.fixture
def frames(tmp_path, rng) -> Path:
    """Return a folder of 2D frames without patient ids, of which the last two are near-duplicates."""
    root = tmp_path / "frames"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(6):
        if index < 5:
            coarse = rng.integers(20, 255, (6, 6), dtype=np.uint8)
            image = np.asarray(Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)).copy()
        image[:4] = 0  # not insonified
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        mask = np.zeros((30, 40), dtype=np.uint8)
        mask[10:20, 10:20] = 1
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    return root


def frame_module(root: Path, folder: Path, **arguments) -> UltrasoundDataModule:
    settings = {
        "layout": "folder",
        "classes": {"nerve": 1},
        "spatial_dims": 2,
        "spatial_size": [30, 40],
        "domain": "linear",
        "cache_dir": folder / "cache",
    }
    return UltrasoundDataModule(root, **{**settings, **arguments})


def test_image_folds_must_be_allowed_and_keep_duplicates_together(frames, tmp_path):
    with pytest.raises(ValueError, match=r"data.image_folds true"):
        frame_module(frames, tmp_path).prepare_data()
    data = frame_module(frames, tmp_path, image_folds=True)
    groups = {case.id: case.patient for case in data.cases}
    assert groups["4"] == groups["5"]
    assert len(set(groups.values())) == 5
    assert "names no patients" in data.grouping


def test_confidence_starts_at_the_insonified_region(frames, tmp_path):
    data = frame_module(frames, tmp_path, image_folds=True)
    data.prepare_data()
    data.setup("fit")
    confidence = data.training_set[0]["confidence"][0]
    assert (confidence[:4] == 0).all()
    assert (confidence[4] == 1).all()


def test_patients_from_a_pattern(frames, tmp_path):
    data = frame_module(frames, tmp_path, patient_pattern=r"\d")
    assert [case.patient for case in data.cases] == list("012345")
    assert data.grouping == "patient"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"spatial_size": None}, "either data.spatial_size"),
        ({"patch_size": [8, 8, 8]}, "either data.spatial_size"),
        ({"spatial_size": [8, 8]}, "data.spatial_size must be 3 positive numbers"),
        ({"axes": "depth lateral", "spatial_dims": 3}, "has 2 axes, but data.spatial_dims is 3"),
        ({"classes": {"a": 1, "b": 1}}, "that no other class has"),
        ({"classes": {"nerve": 0}}, "other than 0"),
        ({"batch_size": 0}, "at least 1"),
        ({"foreground": 2.0}, "data.foreground must be between 0 and 1"),
        ({"spacing": [1, 1, 1]}, "data.spacing needs data.patch_size"),
    ],
)
def test_invalid_arguments_raise_errors(muscle_set, tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        module(muscle_set, tmp_path, **arguments)


def test_missing_folds_raise_an_error(muscle_set, tmp_path):
    with pytest.raises(ValueError, match=r"data\.fold must be between 0 and 2 for the split kfold, found 3"):
        module(muscle_set, tmp_path, fold=3).prepare_data()


def test_maps_of_a_real_volume(real_data, tmp_path):
    data = UltrasoundDataModule(
        real_data,
        {"bone": 1},
        layout="nnunet",
        spatial_size=[32, 32, 21],
        predict_path=real_data / "plus_us" / "BoneUltrasound_L14_cropped.nii.gz",
        confidence_mode="on_the_fly",
        cache_dir=tmp_path,
    )
    data.setup("predict")
    batch = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    assert batch["native_shape"].tolist() == [[614, 467, 21]]  # depth, lateral, frame
    mean = batch["confidence"].mean(dim=(0, 1, 3, 4))
    assert mean[0] == 1
    assert mean[-1] == 0


@pytest.fixture(scope="module")
def convex_set(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("convex")
    Phantom("muscle", patients=3, size=(72, 64, 4), spacing=(0.8, 0.8, 2.4), probe="convex").write(root)
    return root


@pytest.mark.parametrize("domain", ["convex", "auto"])
def test_maps_of_convex_probes_start_at_the_arc_in_both_modes(convex_set, tmp_path, domain):
    settings = {"split": "kfold", "n_folds": 3, "spatial_size": [36, 32, 4], "domain": domain}
    truth = Phantom("muscle", patients=3, size=(72, 64, 4), spacing=(0.8, 0.8, 2.4), probe="convex").simulate(0).domain
    inside = truth.reshape(36, 2, 32, 2).mean(axis=(1, 3)) == 1
    maps = {}
    for mode in ("native", "on_the_fly"):
        data = module(convex_set, tmp_path, confidence_mode=mode, augmentation=NO_AUGMENTATION, **settings)
        data.prepare_data()
        data.setup("fit")
        set_training(data)
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
        maps[mode] = batch["confidence"][0, 0, :, :, 1].numpy()
    for confidence in maps.values():
        first = np.array(
            [column[mask][0] if mask.any() else np.nan for column, mask in zip(confidence.T, inside.T, strict=True)]
        )
        middle, edge = first[14:18], first[1:5]
        assert middle.min() > 0.8
        # The first insonified pixels of columns at the sides of the fan are far from the probe.
        assert np.nanmax(edge) < 0.6


@pytest.mark.parametrize("axes", ["lateral depth elevation", "lateral -depth elevation"])
def test_geometry_file_gives_the_region_of_all_images(convex_set, tmp_path, axes):
    """The file describes the frames as they are stored, also if the axes turn them."""
    stored = Sector(-10.0, 30.0, 22.0, 75.0, -30.0, 33.0)
    turned = stored
    if "-" in axes:
        turned = Sector(82.0, 30.0, 22.0, 75.0, 147.0, 210.0)
    write_geometry(tmp_path / "geometry.json", turned, (72, 64))
    options = {"domain": tmp_path / "geometry.json", "axes": axes, "spatial_size": [72, 64, 4]}
    data = module(convex_set, tmp_path, augmentation=NO_AUGMENTATION, n_folds=3, **options)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    masks = stored.masks((72, 64))
    np.testing.assert_array_equal(batch["domain"][0, 0, :, :, 0], masks.domain)
    case = next(case for case in data.cases if case.id == batch["case"][0])
    image = read_case(case, data.axes, MUSCLE_CLASSES).image[:, :, 0]
    expected = ConfidenceMapSolver()(image, masks.domain, masks.source, masks.sink)
    np.testing.assert_allclose(batch["confidence"][0, 0, :, :, 0], expected, atol=2e-5)


def test_geometry_file_with_the_probe_at_another_side_is_refused(convex_set, tmp_path):
    write_geometry(tmp_path / "geometry.json", Rectangle(4, 60, 5, 60, "bottom"), (72, 64))
    with pytest.raises(ValueError, match=r"geometry.json, the probe is not at the first row .* change axes"):
        module(convex_set, tmp_path, domain=tmp_path / "geometry.json").prepare_data()
    with pytest.raises(ValueError, match=r"geometry file .*none.json does not exist"):
        module(convex_set, tmp_path, domain=tmp_path / "none.json").prepare_data()


def test_linear_frames_have_no_fan(muscle_set, tmp_path):
    with pytest.raises(ValueError, match="domain is 'convex', but there is no fan in"):
        module(muscle_set, tmp_path, domain="convex").prepare_data()
