"""Phantoms: acoustic properties, compared with known values, and files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cm_lightning.data import Phantom
from cm_lightning.data.layouts import find_cases
from cm_lightning.data.phantom.acoustics import BeamGrid, Scanner, log_compress, receive
from cm_lightning.data.phantom.anatomy import TISSUES, Structure

GRID = BeamGrid(0.15, np.full(300, 0.3, dtype=np.float32), 1.0, (300, 100, 12))


def homogeneous_body(tissue: str) -> list[Structure]:
    """Return a body of a single tissue."""
    distance = np.full(GRID.shape, -10.0, dtype=np.float32)
    return [Structure("all", tissue, distance, np.ones_like(distance))]


def homogeneous_envelope(monkeypatch, tissue: str, scanner: Scanner, seed: int = 0) -> np.ndarray:
    """Return the envelope of homogeneous tissue without strands, regional variations and poor contact."""
    for effect in ("_regional_echogenicity", "_strands", "_poor_contact"):
        monkeypatch.setattr(f"cm_lightning.data.phantom.acoustics.{effect}", lambda *_: np.zeros((1, 1, 1), np.float32))
    return np.abs(receive(homogeneous_body(tissue), GRID, scanner, np.random.default_rng(seed)))


def test_speckle_is_fully_developed(monkeypatch):
    envelope = homogeneous_envelope(monkeypatch, "thyroid", Scanner(noise=-200.0))
    rows = envelope[:, 10:-10]
    ratio = np.mean(rows.mean(axis=(1, 2)) / rows.std(axis=(1, 2)))
    # Rayleigh: mean / SD = sqrt(pi / (4 - pi)) = 1.913.
    assert ratio == pytest.approx(1.913, abs=0.06)


@pytest.mark.parametrize("tissue", ["muscle", "thyroid", "blood"])
def test_slope_of_the_echo_agrees_with_attenuation(monkeypatch, tissue):
    scanner = Scanner(noise=-200.0, time_gain=0.0)
    envelope = homogeneous_envelope(monkeypatch, tissue, scanner)
    power = 10 * np.log10((envelope[:, 10:-10] ** 2).mean(axis=(1, 2)))[20:-20]
    centimetres = np.arange(len(power)) * GRID.step / 10
    slope = np.polyfit(centimetres, power, 1)[0]
    assert slope == pytest.approx(-2 * scanner.frequency * TISSUES[tissue].attenuation, rel=0.06, abs=0.15)


def test_full_time_gain_compensates_mean_attenuation(monkeypatch):
    monkeypatch.setitem(TISSUES, "thyroid", type(TISSUES["thyroid"])(-10.0, 0.55))
    envelope = homogeneous_envelope(monkeypatch, "thyroid", Scanner(noise=-200.0, time_gain=1.0))
    power = 10 * np.log10((envelope[:, 10:-10] ** 2).mean(axis=(1, 2)))[20:-20]
    assert abs(np.polyfit(np.arange(len(power)) * GRID.step / 10, power, 1)[0]) < 0.4


def test_log_compression_agrees_with_values_computed_by_hand():
    envelope = np.array([[1.0, 10 ** (-30 / 20), 10 ** (-54 / 20), 10 ** (-80 / 20)]], dtype=np.float32)
    grey = log_compress(np.repeat(envelope, 500, axis=0), 60.0)
    np.testing.assert_allclose(grey[0], [round(255 * 54 / 60), round(255 * 24 / 60), 0, 0], atol=1)


def test_neighbouring_frames_are_correlated_and_patients_are_not():
    phantom = Phantom(size=(48, 48, 24), spacing=(1.0, 1.0, 0.6))
    first, second = phantom.simulate(0), phantom.simulate(1)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    def speckle(image: np.ndarray) -> np.ndarray:
        """Subtract the mean of each row, which removes horizontal layers."""
        return image[30:, :, :] - image[30:, :, :].mean(axis=1, keepdims=True)

    texture = speckle(first.image.astype(float))
    assert correlation(texture[:, :, 10], texture[:, :, 11]) > 0.5
    assert correlation(texture[:, :, 2], texture[:, :, 20]) < 0.35
    assert abs(correlation(texture, speckle(second.image.astype(float)))) < 0.2
    assert (first.label != second.label).mean() > 0.02


@pytest.mark.parametrize("variant", ["muscle", "thyroid"])
def test_all_patients_have_all_classes(variant):
    phantom = Phantom(variant, size=(32, 32, 16), spacing=(1.8, 1.8, 6.0))
    for patient in range(6):
        values = set(np.unique(phantom.simulate(patient).label).tolist())
        assert values == {0, *phantom.classes.values()}


def test_more_boundaries_are_missing_at_large_depths():
    """The superficial fascia of the gastrocnemius is visible more often than the deep fascia of the soleus."""
    phantom = Phantom(size=(96, 48, 24), spacing=(0.6, 1.2, 4.0))
    superficial_visible, deep_visible = [], []
    for patient in range(4):
        volume = phantom.simulate(patient)
        for name, visible in (("gastrocnemius_medialis", superficial_visible), ("soleus", deep_visible)):
            mask = volume.label == phantom.classes[name]
            for column in np.argwhere(mask.sum(axis=0) > 8):
                line = volume.image[:, *column].astype(float)
                rows = np.flatnonzero(mask[:, *column])
                edge = rows[0] if name.startswith("g") else rows[-1]
                inside = line[rows[2:-2]].mean()
                visible.append(line[max(edge - 2, 0) : edge + 3].max() > inside + 40)
    assert np.mean(superficial_visible) > np.mean(deep_visible) + 0.15


def test_bone_causes_a_shadow():
    phantom = Phantom(size=(96, 96, 8), spacing=(0.6, 0.6, 4.0))
    image = phantom.simulate(0).image[:, :, 4].astype(float)
    deepest = image[-6:].mean(axis=0)
    assert deepest.min() < 0.4 * np.median(deepest)


def test_images_of_convex_probes_are_black_only_outside_the_fan():
    volume = Phantom(size=(64, 64, 4), probe="convex").simulate(0)
    assert (volume.image[~volume.domain] == 0).all()
    assert (volume.image[volume.domain] > 0).all()
    assert 0.3 < volume.domain.mean() < 0.9
    assert not volume.label[~volume.domain].any()


def file_hashes(root: Path) -> dict[str, str]:
    """Return the SHA-256 hash of every file in a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_files_are_reproducible(tmp_path):
    phantom = Phantom(patients=3, size=(12, 14, 6), spacing=(4.0, 4.0, 10.0))
    phantom.write(tmp_path / "first")
    phantom.write(tmp_path / "second")
    Phantom(patients=3, size=(12, 14, 6), spacing=(4.0, 4.0, 10.0), seed=1).write(tmp_path / "other_seed")
    assert file_hashes(tmp_path / "first") == file_hashes(tmp_path / "second")
    assert file_hashes(tmp_path / "first") != file_hashes(tmp_path / "other_seed")


def test_files_have_the_layouts_of_real_data_sets(muscle_set, thyroid_set):
    muscles = find_cases(muscle_set, "leg3d")
    assert len(muscles) == 11
    assert {case.subset for case in muscles} == {"train", "val", "test"}
    image = sitk.ReadImage(str(muscles[0].image))
    assert image.GetSize() == (24, 16, 16)
    assert image.GetSpacing() == (2.4, 3.0, 6.0)
    thyroids = find_cases(thyroid_set, "segthy")
    assert [case.patient for case in thyroids] == ["000", "001", "002"]
    assert all(case.label is not None and case.label.is_file() for case in [*muscles, *thyroids])


def test_empty_volumes_raise_an_error():
    with pytest.raises(ValueError, match="must be positive"):
        Phantom(size=(0, 4, 4))
