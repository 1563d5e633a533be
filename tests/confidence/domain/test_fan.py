"""Tests of the fan of a convex probe before a black background."""

import numpy as np
import pytest
from PIL import Image

from cm_lightning.confidence import ConfidenceMapSolver, find_insonified
from cm_lightning.confidence.domain.fan import find_fan
from cm_lightning.data.phantom import Phantom


@pytest.mark.parametrize(("size", "spacing"), [((96, 96, 3), (0.6, 0.6, 1.2)), ((300, 280, 2), (0.25, 0.35, 1.2))])
@pytest.mark.parametrize("defect", ["none", "shadow", "dark corner", "marks", "haze"])
def test_fan_of_a_convex_probe_is_found(rng, size, spacing, defect):
    volume = Phantom(size=size, spacing=spacing, probe="convex").simulate(0)
    frame = volume.image[:, :, 1].copy()
    depth, lateral = frame.shape
    threshold = 0
    match defect:
        case "shadow":
            frame[depth // 2 :, lateral // 3 : lateral // 2] = 0
        case "dark corner":
            frame[int(0.7 * depth) :, lateral // 2 :] = 0
        case "marks":
            frame[2 : depth // 12, 2 : lateral // 10] = 255
            frame[-(depth // 12) :, -(lateral // 10) :] = 200
        case "haze":
            frame = np.clip(frame.astype(int) + rng.integers(0, 6, frame.shape), 0, 255)
            threshold = 8
    insonified = find_insonified(frame, "convex", threshold, aspect=spacing[1] / spacing[0])
    overlap = (insonified.domain & volume.domain).sum() / (insonified.domain | volume.domain).sum()
    assert overlap >= 0.98
    row, column = np.nonzero(insonified.source)
    assert row.max() < depth / 4
    assert set(column) == set(range(column.min(), column.max() + 1))
    # The slanted edges belong neither to the source nor to the sink.
    middle = slice(depth // 3, depth // 2)
    assert not insonified.source[middle].any()
    assert not insonified.sink[middle].any()
    confidence_map = ConfidenceMapSolver()(frame, insonified.domain, insonified.source, insonified.sink)
    assert confidence_map[insonified.source].min() == 1
    assert confidence_map[~insonified.domain].max() == 0


def test_no_fan_is_found_in_linear_frames(real_data):
    files = sorted((real_data / "usgra_seg" / "images").glob("*.png"))[::17]
    for file in files:
        assert find_fan(np.asarray(Image.open(file).convert("L"))) is None


def test_no_fan_is_found_in_noise_and_black_frames(rng):
    assert find_fan(rng.random((40, 40))) is None
    assert find_fan(np.zeros((30, 30))) is None
