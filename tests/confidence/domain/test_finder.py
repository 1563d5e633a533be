"""Tests of the search for the insonified region of any screen."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cm_lightning.confidence import Rectangle, find_geometry, find_insonified, geometry_from_dict
from cm_lightning.confidence.domain.fitting import fit_geometries
from cm_lightning.confidence.domain.network import WEIGHTS_FILE, load_network
from cm_lightning.confidence.domain.snapping import EdgeFinder
from cm_lightning.confidence.domain.views import overlap
from cm_lightning.data.screens import TissueTextures, draw_screen
from cm_lightning.data.screens.pictures import FAMILIES, Box, draw_region


@pytest.fixture(scope="module")
def screens():
    """Return synthetic screens."""
    rng = np.random.default_rng(5)
    textures = TissueTextures()
    return [draw_screen(rng, textures) for _ in range(24)]


def find_quietly(frames, *arguments, **options):
    """Find the region without the warning of a doubtful one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The detected insonified region")
        return find_insonified(frames, *arguments, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_fit_recovers_the_shapes_of_all_families(family):
    rng = np.random.default_rng(3)
    for _ in range(4):
        box = Box(rng.uniform(5, 25), rng.uniform(110, 140), rng.uniform(5, 40), rng.uniform(150, 185))
        region = draw_region(rng, (144, 192), box, family, "top")
        fit = fit_geometries(region.inside.astype(float), region.inside)[0]
        rows, columns = np.indices(region.inside.shape) + 0.5
        assert overlap(fit.distance(rows, columns) > 0, region.inside) > 0.985


def test_borders_are_aligned_with_edges_in_the_pixels(rng):
    image = np.zeros((60, 80), np.float32)
    image[12:50, 20:70] = rng.uniform(60, 120, (38, 50))
    edges = EdgeFinder(image, cell=4.0)
    assert [edges.move_row(14.3, (20, 70), -1), edges.move_row(47.8, (20, 70), 1)] == [12, 50]
    assert [edges.move_column(18.1, (12, 50), -1), edges.move_column(71.9, (12, 50), 1)] == [20, 70]
    # There is no edge near the middle of a region of even texture.
    assert edges.move_row(31.2, (30, 60), 1) == 31


def test_regions_of_synthetic_screens_are_found_or_doubted(screens):
    scores, overlaps = [], []
    for screen in screens:
        region = find_quietly(screen.image)
        scores.append(region.score)
        overlaps.append(overlap(region.domain, screen.region.inside))
        np.testing.assert_array_equal(region.geometry.masks(screen.image.shape).domain, region.domain)
    assert np.median(overlaps) > 0.95
    assert np.corrcoef(scores, overlaps)[0, 1] > 0.3


def test_probes_at_all_sides_are_recognised():
    rng, textures = np.random.default_rng(8), TissueTextures()
    sides = []
    while len(sides) < 12:
        screen = draw_screen(rng, textures)
        region = find_quietly(screen.image)
        if overlap(region.domain, screen.region.inside) > 0.95:
            sides.append(region.up == screen.region.side)
            given = find_quietly(screen.image, up=screen.region.side)
            assert given.up == screen.region.side
            near = screen.region.depth[given.source]
            assert np.median(near) < 0.1
    assert np.mean(sides) > 0.7


@settings(max_examples=40, deadline=None)
@example(np.zeros((1, 21), np.uint8))
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=40),
        elements=st.integers(0, 255),
    )
)
def test_any_array_gives_a_domain_with_source_and_sink(frames):
    if frames.ndim == 3 and frames.shape[-1] in (3, 4):
        return
    region = find_quietly(frames)
    assert region.domain.shape == region.source.shape == region.sink.shape == frames.shape
    for domain, source, sink in zip(*(mask.reshape(-1, *mask.shape[-2:]) for mask in (
        region.domain, region.source, region.sink)), strict=True):  # fmt: skip
        assert (source & domain).any()
        assert (sink & domain).any()
    assert 0 <= region.score <= 1


def test_type_and_scale_of_the_frames_do_not_matter(screens):
    image = screens[0].image
    expected = find_quietly(image)
    assert isinstance(find_quietly(torch.from_numpy(image)).domain, torch.Tensor)
    for frames in (image[None, None], image.astype(np.float32) / image.max(), image.astype(np.uint16) * 200):
        assert overlap(find_quietly(frames).domain.reshape(image.shape), expected.domain) > 0.97


def test_a_sequence_has_one_geometry_and_uses_the_change_over_time(rng):
    frames = np.zeros((9, 150, 200), np.uint8)
    frames[:, 20:130, 40:160] = rng.integers(0, 120, (9, 110, 120))
    frames[:, 60:, 40:90] //= 30  # a shadow that lights up in one frame
    frames[4, 60:130, 40:90] = rng.integers(20, 120, (70, 50))
    frames[:, 5:12, 3:60] = 200  # an overlay
    region = find_quietly(frames)
    assert (region.domain == region.domain[0]).all()
    expected = Rectangle(20, 130, 40, 160).masks((150, 200)).domain
    assert overlap(region.domain[0], expected) > 0.9
    assert find_quietly(frames[:0]).domain.shape == (0, 150, 200)


def test_a_still_sequence_is_as_good_as_one_of_its_frames(screens):
    frame = screens[0].image
    single, repeated = (find_geometry(frames, "auto") for frames in (frame[None], np.stack([frame] * 3)))
    assert repeated == single


def test_a_doubtful_region_causes_a_warning(rng):
    noise = rng.integers(0, 256, (64, 96)).astype(np.uint8)
    noise[:, ::7] = 0
    flat = np.full((64, 96), 90, np.uint8)
    warned = 0
    for frame in (noise[::-1], flat, np.eye(80) * 255):
        score = find_quietly(frame).score
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            find_insonified(frame)
        assert bool(caught) == (score < 0.5)
        warned += bool(caught)
    assert warned
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_insonified(flat, Rectangle(2, 60, 3, 90))


def test_unusable_frames_are_refused_in_one_sentence(rng):
    for frames, message in [
        (rng.integers(0, 255, (40, 50, 3), dtype=np.uint8), r"\(40, 50, 3\), whose last axis seems to contain colour"),
        (rng.random(7), r"found \(7,\)"),
        (np.full((5, 6), np.nan), "must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            find_insonified(frames)
    with pytest.raises(ValueError, match="up must be auto or one of top, bottom, left, right, found 'north'"):
        find_geometry(rng.random((5, 6)), "auto", up="north")


def test_weights_are_small():
    from importlib.resources import files

    assert files("cm_lightning.confidence.domain").joinpath(WEIGHTS_FILE).stat().st_size <= 2_000_000
    network, score = load_network()
    assert not network.training
    assert np.isfinite(score).all()


def test_regions_of_real_screens(real_data):
    """Most regions of real screens, which were not used for the training, are found."""
    overlaps = []
    for entry in json.loads((real_data / "screens" / "truth.json").read_text())["frames"][::4]:
        folder = real_data if "/" in entry["file"] else real_data / "screens"
        image = np.asarray(Image.open(folder / entry["file"]).convert("L"))
        truth = geometry_from_dict({"up": entry["up"], **entry["geometry"]}).masks(image.shape).domain
        overlaps.append(overlap(find_quietly(image).domain, truth))
    assert np.median(overlaps) > 0.95
