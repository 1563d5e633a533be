"""Cases are read only once and kept for later steps."""

import pickle
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cm_lightning.data import cases as cases_module
from cm_lightning.data import reading
from cm_lightning.data.phantom import Phantom
from cm_lightning.data.reading import CaseReader
from tests.data.test_datamodule import frame_module, frames, module

__all__ = ["frames"]  # a fixture


@pytest.fixture
def counted(monkeypatch):
    """Count how often each image is read and how often its geometry is determined."""
    counts = {"read": Counter(), "geometry": Counter()}
    read_case, find_geometry = reading.read_case, reading.find_geometry

    def count_read(case, *arguments):
        counts["read"][case.id] += 1
        return read_case(case, *arguments)

    def count_geometry(frames, *args, **kwargs):
        counts["geometry"][frames.tobytes()] += 1
        return find_geometry(frames, *args, **kwargs)

    monkeypatch.setattr(reading, "read_case", count_read)
    monkeypatch.setattr(reading, "find_geometry", count_geometry)
    return counts


def run_stage(data, stage):
    """Call the methods of a data module in the same order as Lightning."""
    data.trainer = SimpleNamespace(training=False, state=SimpleNamespace(fn=stage))
    data.prepare_data()
    data.setup(stage)
    loaders = {
        "fit": lambda: [data.train_dataloader(), data.val_dataloader()],
        "test": lambda: [data.test_dataloader()],
        "predict": lambda: [data.predict_dataloader()],
    }
    return [batch for loader in loaders[stage]() for batch in loader]


@pytest.fixture(scope="module")
def convex_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("convex")
    Phantom("muscle", patients=3, size=(72, 64, 4), spacing=(0.8, 0.8, 2.4), probe="convex").write(root)
    return root


@pytest.mark.parametrize("mode", ["native", "on_the_fly"])
@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_volumes_are_read_once_and_their_fans_are_fitted_once(convex_root, tmp_path, counted, stage, mode):
    data = module(convex_root, tmp_path, domain="convex", confidence_mode=mode, spatial_size=[36, 32, 4])
    batches = run_stage(data, stage)
    assert set(counted["read"].values()) == set(counted["geometry"].values()) == {1}
    # Test cases are also checked before a training.
    checked = data.cases if stage == "fit" else data.cases_of("test")
    assert set(counted["read"]) == {case.id for case in checked}
    assert {case for batch in batches for case in batch["case"]} <= set(counted["read"])


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_images_that_are_compared_for_folds_are_read_once(frames, tmp_path, counted, stage):
    data = frame_module(frames, tmp_path, image_folds=True, domain="auto")
    run_stage(data, stage)
    assert set(counted["read"]) == {case.id for case in data.cases}
    assert set(counted["read"].values()) == {1}


def test_cases_that_do_not_fit_into_memory_are_read_again(convex_root, tmp_path, counted):
    samples = []
    for free_bytes in (2**31, 0):
        counted["read"].clear()
        data = module(convex_root, tmp_path / str(free_bytes), domain="convex", spatial_size=[36, 32, 4])
        data._reader._free_bytes = free_bytes
        samples.append(run_stage(data, "test"))
        assert set(counted["read"].values()) == {1 if free_bytes else 3}  # for checks, maps and test
    assert set(counted["geometry"].values()) == {2}  # once for each of the two data modules
    for kept, read_again in zip(*samples, strict=True):
        assert all(torch.equal(kept[key], read_again[key]) for key in ("image", "confidence", "native_label"))


def test_kept_cases_are_returned_once_and_released(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path)
    reader = CaseReader(data.axes, data.classes)
    first, second = (reader.read(case) for case in data.cases[:2])
    free_bytes = reader._free_bytes
    reader.keep_in_memory(first)
    reader.keep_in_memory(second)
    assert reader._free_bytes == free_bytes - first.nbytes - second.nbytes
    assert reader.read(first.case).arrays is first.arrays
    reader.release(keep=[first.case])
    assert reader._free_bytes == free_bytes
    assert reader.read(second.case).arrays is not second.arrays
    np.testing.assert_array_equal(reader.read(second.case).arrays.image, second.arrays.image)


def test_kept_cases_are_not_pickled_and_depend_on_the_label(muscle_set, tmp_path):
    data = module(muscle_set, tmp_path)
    reader = CaseReader(data.axes, data.classes)
    first = reader.read(data.cases[0])
    free_bytes = reader._free_bytes
    reader.keep_in_memory(first)
    reader.keep_in_memory(first)  # a second time
    assert reader._free_bytes == free_bytes - first.nbytes
    unpickled = pickle.loads(pickle.dumps(reader))
    assert unpickled._free_bytes == free_bytes
    assert unpickled.read(first.case).arrays is not first.arrays
    unlabelled = reader.read(replace(first.case, label=None))
    assert unlabelled.arrays.label is None
    reader.keep_in_memory(unlabelled)
    assert reader.read(first.case).arrays.label is not None
    with pytest.raises(ValueError, match=r"probe must be a geometry or one of whole, .*auto, found 'sector'"):
        CaseReader(data.axes, data.classes, "sector").read(first.case)


def test_file_digest_changes_with_the_file(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"one")
    first = cases_module.file_digest(path)
    path.write_bytes(b"two, longer")
    assert cases_module.file_digest(path) != first
