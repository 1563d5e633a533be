"""Small data sets in all layouts."""

import json

import numpy as np
import pytest
from PIL import Image

from cm_lightning.inspection import command

SHAPE = (64, 48)


@pytest.fixture(autouse=True)
def few_searches(monkeypatch):
    """Search the region in two cases only, which takes most of the time."""
    monkeypatch.setattr(command, "MAX_SEARCHES", 2)


@pytest.fixture
def frame(rng):
    """Return a function that simulates speckle, with a dark disc of a given row, and its label of a given value."""

    def simulate(row=30, value=1, shape=SHAPE):
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        disc = (rows - row) ** 2 + (columns - shape[1] // 2) ** 2 < 64
        speckle = rng.rayleigh(60.0, shape) * np.where(disc, 0.3, 1.0)
        return np.clip(speckle, 1, 255).astype(np.uint8), (value * disc).astype(np.uint8)

    return simulate


@pytest.fixture
def write_frames(frame):
    """Return a function that writes PNG files: ``count`` images and labels with given paths."""

    def write(root, image, label, count=6, value=1):
        for number in range(count):
            for pattern, array in zip((image, label), frame(20 + 4 * number, value), strict=True):
                path = root / pattern.format(f"a{number}")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
        return root

    return write


@pytest.fixture
def nnunet_set(write_frames, tmp_path):
    """Return a data set of nnU-Net, whose classes have names that are special in YAML."""
    root = write_frames(tmp_path / "Dataset001_Leg", "imagesTr/{}_0000.png", "labelsTr/{}.png")
    labels = {"background": 0, "no": 1, "left/right atrium": 2, "both": [1, 2], "ignore": 3}
    description = {"channel_names": {"0": "ultrasound"}, "labels": labels, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(description))
    label = np.zeros(SHAPE, np.uint8)
    label[:5, :5], label[10:15, :4], label[30:, :2] = 2, 1, 3
    Image.fromarray(label).save(root / "labelsTr" / "a0.png")
    return root
