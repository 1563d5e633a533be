"""Simulated raters: standard deviations of their boundaries, reproducibility and files."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom, UltrasoundDataModule
from cm_lightning.data.layouts import find_cases
from cm_lightning.data.phantom import RaterModel
from cm_lightning.data.phantom.raters import _Displacement
from cm_lightning.data.raters import read_rater_labels
from cm_lightning.io import Axes
from cm_lightning.main import main
from cm_lightning.uncertainty.boundary import between_rater_sd, boundary_deviation, boundary_sd, within_rater_sd
from cm_lightning.uncertainty.raters import majority
from tests.data.test_phantom import file_hashes

SPACING = (0.3, 0.3)
FRAMES = Phantom(size=(120, 120, 1), spacing=(*SPACING, 1.0))
PHANTOM = Phantom(patients=3, size=(16, 20, 6), spacing=(3.0, 2.4, 8.0))


@pytest.fixture(scope="module")
def frames():
    """Return class indices and confidence maps of twenty frames of muscles."""
    volumes = [FRAMES.simulate(patient) for patient in range(20)]
    images = np.stack([volume.image[:, :, 0] for volume in volumes])
    values = [0, *FRAMES.classes.values()]
    labels = [np.searchsorted(values, volume.label[:, :, 0]).astype(np.uint8) for volume in volumes]
    return list(zip(labels, ConfidenceMapSolver()(images), strict=True))


def measured_and_expected(model, label, confidence, image):
    """Return the measured and the expected SD at the boundaries of all classes."""
    labels = np.stack([simulated.label for simulated in model.draw(label, SPACING, image, confidence)])
    consensus = majority(labels, 4)
    expected = model.standard_deviation(label.shape, SPACING, confidence)
    pairs = []
    for index in (1, 2, 3):
        deviation = boundary_deviation(labels, consensus, index, SPACING, reach=5.0)
        smooth = ~deviation.corner  # the normal is not well defined at corners
        expected_at_points = ndimage.map_coordinates(expected, deviation.points[smooth].T, order=1)
        pairs.append(np.stack([boundary_sd(deviation.offsets[:, smooth])[0], expected_at_points]))
    return np.concatenate(pairs, axis=1)


@pytest.mark.parametrize(
    "model",
    [
        RaterModel(sd=0.8),
        RaterModel(sd=0.4, depth=0.2),
        RaterModel(sd=0.4, confidence=0.8),
        RaterModel(sd=0.3, depth=0.15, confidence=0.5),
    ],
    ids=["constant", "depth", "confidence", "both"],
)
def test_measured_sd_agrees_with_the_model(frames, model):
    pairs = [measured_and_expected(model, *frame, str(number)) for number, frame in enumerate(frames)]
    assert np.mean([sd.mean() / expected.mean() for sd, expected in pairs]) == pytest.approx(1, abs=0.05)
    # The same applies to points with a small and with a large SD.
    sd, expected = np.concatenate(pairs, axis=1)
    for selected in (expected <= np.median(expected), expected >= np.median(expected)):
        assert sd[selected].mean() / expected[selected].mean() == pytest.approx(1, abs=0.07)


def test_inter_and_intra_rater_variance(frames):
    label, _ = frames[0]
    within_variances, between_variances = [], []
    for seed in range(4):
        model = RaterModel(raters=20, repeats=5, sd=0.8, between=0.6, coherence=5.0, seed=seed)
        simulated = list(model.draw(label, SPACING))
        labels = np.stack([item.label for item in simulated])
        deviation = boundary_deviation(labels, majority(labels, 4), 1, SPACING)
        raters = [item.rater for item in simulated]
        offsets = deviation.offsets[:, ~deviation.corner]
        within_variances.append(np.mean(within_rater_sd(offsets, raters) ** 2))
        between_variances.append(np.mean(between_rater_sd(offsets, raters) ** 2))
    assert np.mean(within_variances) == pytest.approx(0.4 * 0.8**2, rel=0.1)
    assert np.mean(between_variances) == pytest.approx(0.6 * 0.8**2, rel=0.2)


def test_displacement_has_unit_variance_and_the_given_coherence():
    draw = _Displacement((20, 41, 6), (1.0, 0.5, 2.0), coherence=4.0)
    fields = np.stack([draw([number]) for number in range(1500)])
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.1)
    assert fields.var(axis=0).mean() == pytest.approx(1, abs=0.02)
    first_component, second_component = np.moveaxis(fields, -1, 0)
    assert np.mean(first_component * second_component) == pytest.approx(0, abs=0.02)
    for first, second in (
        (first_component[:, :, :-4], first_component[:, :, 4:]),
        (second_component[..., :-8], second_component[..., 8:]),
        (first_component[:, :-2], first_component[:, 2:]),
    ):
        assert np.mean(first * second) == pytest.approx(np.exp(-1 / 2), abs=0.03)


def test_labels_do_not_depend_on_the_number_of_raters_and_repeats(frames):
    label, _ = frames[1]

    def draw(raters, repeats, **options):
        model = RaterModel(raters, repeats, between=0.5, **options)
        return {(item.rater, item.repeat): item.label for item in model.draw(label, SPACING, "a")}

    two_raters, three_raters = draw(2, 2), draw(3, 4)
    assert list(three_raters) == [(f"rater{rater}", repeat) for rater in (1, 2, 3) for repeat in (1, 2, 3, 4)]
    for key, simulated in two_raters.items():
        np.testing.assert_array_equal(simulated, three_raters[key])
    for first, second in itertools.combinations(three_raters.values(), 2):
        assert (first != second).any()
    assert (draw(1, 1, seed=1)["rater1", 1] != three_raters["rater1", 1]).any()
    other_image = next(RaterModel(between=0.5).draw(label, SPACING, "b")).label
    assert (other_image != three_raters["rater1", 1]).any()


def test_labels_with_zero_sd_equal_the_true_label(frames):
    for label, _ in frames[:3]:
        for simulated in RaterModel(repeats=2, sd=0.0).draw(label, SPACING):
            np.testing.assert_array_equal(simulated.label, label)


def test_number_of_components_does_not_change(frames):
    """Neighbouring muscles remain separated by thin background."""
    label, _ = frames[0]
    components = ndimage.label(label > 0)[1]
    for simulated in RaterModel(repeats=20, sd=1.0).draw(label, SPACING):
        assert set(np.unique(simulated.label)) == {0, 1, 2, 3}
        for index in (1, 2, 3):
            assert ndimage.label(simulated.label == index)[1] == ndimage.label(label == index)[1]
        assert ndimage.label(simulated.label > 0)[1] <= components + 1


def test_default_raters_do_not_depend_on_confidence(frames):
    label, confidence = frames[2]
    for model in (RaterModel(repeats=2), RaterModel(repeats=2, depth=0.3)):
        with_map, without_map = model.draw(label, SPACING, confidence=confidence), model.draw(label, SPACING)
        for first, second in zip(with_map, without_map, strict=True):
            np.testing.assert_array_equal(first.label, second.label)
    with pytest.raises(ValueError, match=r"need a confidence map of the shape \(120, 120\), found none"):
        next(RaterModel(confidence=1.0).draw(label, SPACING))


def test_standard_deviation_agrees_with_values_computed_by_hand():
    model = RaterModel(sd=0.5, depth=0.2, confidence=1.5)
    sd = model.standard_deviation((3, 2), (4.0, 1.0), np.array([[1.0, 0.9], [0.5, 0.4], [0.1, 0.0]]))
    np.testing.assert_allclose(sd, [[0.54, 0.69], [1.37, 1.52], [2.05, 2.2]], rtol=1e-6)


@pytest.mark.parametrize("options", [{"repeats": 0}, {"sd": -1.0}, {"between": 1.5}, {"coherence": 0.0}])
def test_invalid_models_raise_errors(options):
    with pytest.raises(ValueError, match="raters"):
        RaterModel(**options)


def test_raters_that_are_added_later_do_not_change_images(tmp_path):
    PHANTOM.write(tmp_path / "later")
    hashes = file_hashes(tmp_path / "later")
    models = [
        RaterModel(raters=2, repeats=3, sd=2.0),
        RaterModel(repeats=2, confidence=6.0, folder="ratersTr_confidence"),
    ]
    for model in models:
        with_raters = replace(PHANTOM, raters=model)
        with_raters.write(tmp_path / "later")
        with_raters.write(tmp_path / "at_once")
        with pytest.raises(ValueError, match=f"{model.folder} already contains labels of raters"):
            with_raters.write(tmp_path / "at_once")
    hashes_with_raters = file_hashes(tmp_path / "later")
    assert {name: hashes_with_raters[name] for name in hashes} == hashes
    assert hashes_with_raters == file_hashes(tmp_path / "at_once")
    assert json.loads((tmp_path / "later" / "ratersTr" / "model.json").read_text())["sd"] == 2.0
    cases = find_cases(tmp_path / "later", "leg3d")
    assert [case.id for case in cases] == ["phantom00_x1", "phantom01_x1", "phantom02_x1"]
    for case, patient in zip(cases, range(3), strict=True):
        true_label = PHANTOM.simulate(patient).label
        for model, number in zip(models, (6, 2), strict=True):
            rater_labels = read_rater_labels(
                tmp_path / "later" / model.folder, case, Axes("lateral depth elevation"), PHANTOM.classes
            )
            assert len(rater_labels.labels) == number
            assert rater_labels.labels.shape[1:] == PHANTOM.size
            true_indices = np.searchsorted([0, *PHANTOM.classes.values()], true_label)
            accuracy = (rater_labels.labels == true_indices).mean(axis=(1, 2, 3))
            assert (accuracy > 0.6).all()
            assert (accuracy < 1).all()


def test_raters_are_not_added_to_other_images(tmp_path):
    PHANTOM.write(tmp_path)
    model = RaterModel(repeats=1)
    for other_phantom in (
        Phantom(patients=3, size=(16, 20, 8), spacing=PHANTOM.spacing, raters=model),
        Phantom(patients=3, size=PHANTOM.size, spacing=(3.0, 2.4, 4.0), raters=model),
        Phantom(patients=2, size=PHANTOM.size, spacing=PHANTOM.spacing, raters=model),
    ):
        with pytest.raises(ValueError, match=r"x1.mha does not belong to \d muscle phantoms"):
            other_phantom.write(tmp_path)
    assert not (tmp_path / "ratersTr").exists()


def test_thyroid_of_a_convex_probe(tmp_path):
    phantom = Phantom(
        "thyroid", 2, (72, 64, 3), (0.8, 0.8, 8.0), "convex", raters=RaterModel(repeats=4, confidence=2.0)
    )
    phantom.write(tmp_path)
    for number, case in enumerate(find_cases(tmp_path, "segthy")):
        axes = Axes("lateral depth elevation")
        labels = read_rater_labels(tmp_path / "ratersTr", case, axes, phantom.classes).labels
        volume = phantom.simulate(number)
        assert not labels[:, ~volume.domain].any()
        assert (labels != volume.label).any(axis=(1, 2, 3)).all()


def test_labels_are_extrapolated_at_the_edges():
    """A class at the edge of the image or the fan still reaches this edge after a displacement."""
    label = np.zeros((40, 60), dtype=np.uint8)
    label[15:30] = 1
    fan = np.ones_like(label, dtype=bool)
    fan[:, :10] = False
    for simulated in RaterModel(repeats=10, sd=1.0).draw(label, (0.5, 0.5), domain=fan):
        assert simulated.label[22, 10:].all()
        assert not simulated.label[:, :10].any()


def test_raters_in_command_line_and_configuration(tmp_path, capsys):
    arguments = ["phantom", str(tmp_path), "--patients=3", "--size=[12,12,4]", "--spacing=[4.0,4.0,10.0]"]
    main([*arguments, "--raters.repeats=2"])
    main([*arguments, "--raters.sd=0.5", "--raters.depth=0.2", "--raters.repeats=1", "--raters.folder=ratersTr_depth"])
    assert f"Wrote 1 simulated rater labels per image to {tmp_path / 'ratersTr_depth'}" in capsys.readouterr().out
    assert len(list((tmp_path / "ratersTr").glob("*/rater1_00?.mha"))) == 6
    options = ["--config", "configs/muscle_2ch.yaml", "--config", "configs/demo.yaml"]
    with pytest.raises(SystemExit):
        main(["fit", *options, "--data.phantom.raters.repeats=5", "--print_config"])
    phantom = yaml.safe_load(capsys.readouterr().out)["data"]["phantom"]
    assert phantom["raters"]["repeats"] == 5
    assert phantom["raters"]["sd"] == 1.0


def test_data_module_adds_missing_raters(tmp_path):
    PHANTOM.write(tmp_path / "set")
    hashes = file_hashes(tmp_path / "set")
    phantom = replace(PHANTOM, raters=RaterModel(repeats=2))
    data = UltrasoundDataModule(
        tmp_path / "set",
        PHANTOM.classes,
        spatial_size=[16, 16, 16],
        confidence_mode="none",
        cache_dir=tmp_path / "cache",
        phantom=phantom,
    )
    for _ in range(2):
        data.prepare_data()
        assert len(list((tmp_path / "set" / "ratersTr").glob("*/*.mha"))) == 6
    assert hashes.items() <= file_hashes(tmp_path / "set").items()
