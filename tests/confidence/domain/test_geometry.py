"""Tests of the geometry of the insonified region, and of the masks for the solver."""

import numpy as np
import pytest
import torch

from cm_lightning.confidence import (
    ConfidenceMapSolver,
    ProbeGeometry,
    column_sink,
    column_source,
    find_geometry,
    find_insonified,
)
from cm_lightning.data.phantom import Phantom

ASPECT = 0.8 / 0.6


@pytest.fixture(scope="module")
def convex():
    """Return frames of a convex probe, ``(2, depth, lateral)``."""
    volume = Phantom(size=(96, 80, 2), spacing=(0.6, 0.8, 1.2), probe="convex").simulate(0)
    return np.moveaxis(volume.image, 2, 0)


@pytest.fixture
def linear(rng):
    """Return frames of a linear probe with different black borders, ``(2, depth, lateral)``."""
    frames = np.zeros((2, 50, 44))
    frames[0, 5:45, 6:40] = rng.random((40, 34)) + 0.1
    frames[1, 8:40, 2:30] = rng.random((32, 28)) + 0.1
    return frames


@pytest.mark.parametrize(
    ("probe", "recording", "kind"),
    [
        ("whole", "linear", "whole"),
        ("whole", "convex", "whole"),
        ("linear", "linear", "rectangles"),
        ("linear", "convex", "rectangles"),
        ("auto", "linear", "shape"),
        ("auto", "convex", "shape"),
        ("convex", "convex", "shape"),
    ],
)
@pytest.mark.parametrize("as_tensor", [False, True])
def test_solver_masks_and_full_masks_give_the_same_maps(probe, recording, kind, as_tensor, request):
    frames = request.getfixturevalue(recording)
    if as_tensor:
        frames = torch.from_numpy(frames)
    geometry = find_geometry(frames, probe, aspect=ASPECT)
    assert geometry.kind == kind
    assert (geometry.shape is not None) == (kind == "shape")
    masks, expected = geometry.masks(frames), find_insonified(frames, probe, aspect=ASPECT)
    for name in ("domain", "source", "sink"):
        assert getattr(masks, name).shape == tuple(frames.shape)
        assert isinstance(getattr(expected, name), torch.Tensor if as_tensor else np.ndarray)
        np.testing.assert_array_equal(getattr(masks, name), getattr(expected, name))
    solver = ConfidenceMapSolver()
    maps = solver(frames, *geometry.solver_masks(frames))
    np.testing.assert_array_equal(maps, solver(frames, masks.domain, masks.source, masks.sink))


def test_rectangles_are_found_in_each_frame_and_fans_in_the_maximum_of_all_frames(linear, convex):
    rectangles = find_geometry(linear, "linear")
    np.testing.assert_array_equal(rectangles.masks(linear[1]).domain, rectangles.masks(linear).domain[1])
    assert (rectangles.masks(linear).domain[0] != rectangles.masks(linear).domain[1]).any()
    shadowed = convex.copy()
    shadowed[0, :, :40] = 0  # No fan can be found in this frame.
    fan = find_geometry(shadowed, "convex", aspect=ASPECT)
    with pytest.raises(ValueError, match="No fan"):
        find_geometry(shadowed[0], "convex", aspect=ASPECT)
    domain, source, sink = fan.solver_masks(shadowed)
    assert domain.shape == source.shape == sink.shape == shadowed.shape[1:]


def test_threshold_is_used_for_all_geometries(linear, convex):
    assert find_geometry(convex, "convex", 8, ASPECT).shape.kind == "sector"
    hazy = np.where(linear > 0, linear + 1.0, 0.5)
    masks = find_geometry(hazy, "linear", threshold=0.6).masks(hazy)
    np.testing.assert_array_equal(masks.domain, find_insonified(linear, "linear").domain)
    np.testing.assert_array_equal(masks.source, column_source(masks.domain))
    np.testing.assert_array_equal(masks.sink, column_sink(masks.domain))


@pytest.mark.parametrize("mode", ["all", "mid", "min"])
def test_sink_of_the_solver_is_used_for_rectangles(linear, mode):
    solver = ConfidenceMapSolver(sink=mode)
    geometry = find_geometry(linear, "linear")
    maps = solver(linear, *geometry.solver_masks(linear))
    np.testing.assert_array_equal(maps[0, 5:45, 6:40], solver(linear[0, 5:45, 6:40]))


def test_geometry_on_another_grid(convex, linear):
    geometry = find_geometry(convex, "convex", aspect=ASPECT)
    finer = geometry.on_grid((96, 80), (192, 160))
    assert finer == ProbeGeometry("shape", geometry.shape.on_grid((96, 80), (192, 160)))
    fine = finer.masks(np.empty((192, 160))).domain
    coarse = geometry.masks(convex[0]).domain
    assert np.abs(fine.reshape(96, 2, 80, 2).mean(axis=(1, 3)) - coarse).mean() < 0.02
    rectangle = find_geometry(linear, "linear", threshold=0.2)
    assert rectangle.on_grid((50, 44), (100, 88)) == rectangle


def test_errors_for_missing_fan_and_unknown_probe(rng):
    frame = rng.random((40, 40))
    for find in (find_geometry, find_insonified):
        with pytest.raises(ValueError, match=r"No fan of a convex probe .* Use 'auto' .* 'linear' .* or 'whole'"):
            find(frame, "convex")
        with pytest.raises(ValueError, match=r"probe must be a geometry or one of whole, .*auto, found 'curved'"):
            find(frame, "curved")
