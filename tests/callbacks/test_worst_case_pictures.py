"""Choice of the worst test cases and of their frames."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cm_lightning.callbacks import WorstCasePictures
from cm_lightning.tasks import SegmentationTask

SHAPE = (8, 8, 4)


@pytest.fixture(scope="module")
def task():
    options = {"channels": [4, 8], "strides": [2]}
    return SegmentationTask({"muscle": 100}, 3, network_options=options, spatial_size=[8, 8, 4])


def label_of(depths):
    """Return the label of a muscle with a given depth in each frame."""
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    for frame, depth in enumerate(depths):
        label[:depth, :, frame] = 1
    return label


def batch(case, label):
    return {
        "case": [case],
        "unit": ["mm"],
        "image": torch.rand(1, 1, *SHAPE),
        "native_label": label[None, None],
        "native_shape": torch.tensor([SHAPE]),
        "native_spacing": torch.ones(1, 3),
    }


def draw(monkeypatch, task, tmp_path, callback, cases):
    """Return the names of the pictures that are drawn for test cases, and their panels."""
    pictures = {}
    module = "cm_lightning.callbacks.worst_case_pictures"
    monkeypatch.setattr(f"{module}.draw_panels", lambda rows, *_: rows[0])
    monkeypatch.setattr(f"{module}.save_figure", lambda panels, path: pictures.update({path.stem: panels}))
    trainer = SimpleNamespace(fast_dev_run=False, is_global_zero=True, default_root_dir=str(tmp_path))
    for case, (prediction, label) in cases.items():
        outputs = {"prediction": label_of(prediction)}
        callback.on_test_batch_end(trainer, task, outputs, batch(case, label_of(label)), 0)
    callback.on_test_epoch_end(trainer, task)
    callback.on_test_end(trainer, task)
    return pictures


def test_worst_cases_are_drawn_in_the_frame_with_the_most_errors(monkeypatch, task, tmp_path):
    cases = {
        "good": ([4, 4, 4, 4], [4, 4, 4, 4]),
        "bad": ([4, 4, 0, 4], [4, 4, 4, 4]),
        "worse": ([1, 1, 1, 0], [4, 4, 4, 5]),
        "without": ([0, 0, 0, 0], [0, 0, 0, 0]),  # its Dice is undefined
    }
    pictures = draw(monkeypatch, task, tmp_path, WorstCasePictures(2), cases)
    assert list(pictures) == ["test_worse", "test_bad"]
    image, label, prediction = pictures["test_bad"]
    assert image.title == "bad, slice 2: image"
    assert prediction.title == "prediction, Dice 0.86"
    assert not prediction.label.any()
    np.testing.assert_array_equal(label.label, label_of([4, 4, 4, 4])[..., 2].numpy())


def test_zero_cases_draw_nothing(monkeypatch, task, tmp_path):
    assert not draw(monkeypatch, task, tmp_path, WorstCasePictures(0), {"bad": ([0] * 4, [4] * 4)})
