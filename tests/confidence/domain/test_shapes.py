"""Tests of geometric families: masks, sides of the probe, other grids, and files of numbers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_lightning.confidence import (
    ConfidenceMapSolver,
    MaskRegion,
    Polygon,
    Rectangle,
    Sector,
    geometry_from_dict,
    geometry_to_dict,
)
from cm_lightning.confidence.domain.shapes import place_geometry
from cm_lightning.confidence.domain.sides import SIDES, turn_back, turn_to_top, turned_shape

RECTANGLE = Rectangle(3, 25, 4, 30)
SECTOR = Sector(-6.0, 17.5, 9.0, 33.0, -32.0, 28.0, aspect=1.2, right=27.0)
POLYGON = Polygon(((2, 8), (2, 24), (26, 31), (28, 16), (26, 1)), ((2, 8), (2, 24)))
FAMILIES = [RECTANGLE, SECTOR, POLYGON]


def sector_mask(shape, apex, radii, angles, aspect):
    """Decide for every pixel, one after the other, whether it belongs to a sector."""
    mask = np.zeros(shape, bool)
    for row, column in np.ndindex(shape):
        down, right = row + 0.5 - apex[0], (column + 0.5 - apex[1]) * aspect
        angle = np.degrees(np.arctan2(right, down))
        in_angle = any(angles[0] <= angle + turn <= angles[1] for turn in (-360, 0, 360))
        mask[row, column] = radii[0] <= np.hypot(down, right) < radii[1] and in_angle
    return mask


def test_pixels_belong_to_a_region_if_their_centres_do():
    assert Rectangle(1.4, 3.6, 0.5, 2).masks((5, 4)).domain.astype(int).tolist() == [
        [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip
    for angles in [(-40, 25), (100, 260), (60, 110), (250, 300)]:
        sector = Sector(12.0, 15.0, 3.0, 14.0, *angles, aspect=0.9)
        expected = sector_mask((28, 30), (12.0, 15.0), (3.0, 14.0), angles, 0.9)
        np.testing.assert_array_equal(sector.masks((28, 30)).domain, expected)
    triangle = Polygon(((0, 0), (0, 6), (6, 0)), ((0, 0), (0, 6)))
    rows, columns = np.indices((6, 6))
    np.testing.assert_array_equal(triangle.masks((6, 6)).domain, rows + columns + 1 < 6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("geometry", FAMILIES, ids=lambda geometry: geometry.kind)
def test_turned_geometry_has_the_turned_masks(geometry, side):
    part = (32, 36) if side in ("top", "bottom") else (36, 32)
    turned = place_geometry(geometry, side, part, (5, 7))
    assert turned.up == side
    expected = geometry.masks(turned_shape(part, side))
    masks = turned.masks((part[0] + 9, part[1] + 10))
    inner = (slice(5, 5 + part[0]), slice(7, 7 + part[1]))
    np.testing.assert_array_equal(masks.domain[inner], turn_back(expected.domain, side))
    assert masks.domain.sum() == expected.domain.sum()
    if geometry is not SECTOR or side in ("top", "bottom"):  # otherwise the line of one pixel has another thickness
        np.testing.assert_array_equal(masks.source[inner], turn_back(expected.source, side))


@pytest.mark.parametrize("side", SIDES)
def test_turning_back_is_the_inverse_of_turning(side, rng):
    array = rng.random((2, 4, 5))
    np.testing.assert_array_equal(turn_back(turn_to_top(array, side), side), array)
    assert turn_to_top(array, side).shape[1:] == turned_shape((4, 5), side)
    # Rows of the turned array lead away from the side.
    face = {"top": array[:, 0], "bottom": array[:, -1], "left": array[..., 0], "right": array[..., -1]}[side]
    np.testing.assert_array_equal(np.sort(turn_to_top(array, side)[:, 0]), np.sort(face))


def test_source_and_sink_of_a_sector_are_where_beams_enter_and_leave_it():
    masks = SECTOR.masks((32, 36))
    row, column = np.indices((32, 36)) + 0.5
    radius = np.hypot(row + 6.0, (column - 17.5) * 1.2)
    assert radius[masks.source].max() < 10.0
    # The deepest samples, and pixels at the cut on the right or at the last row.
    leaves = (radius >= 32.0) | (column > 26) | (row > 31)
    assert leaves[masks.sink].all()
    assert masks.sink[masks.domain & (radius >= 32.0)].all()
    assert not (masks.sink & (column < 10) & (radius < 31) & (row < 31)).any()


@pytest.mark.parametrize("geometry", FAMILIES, ids=lambda geometry: geometry.kind)
def test_geometry_is_the_same_on_another_grid(geometry):
    coarse = geometry.masks((32, 36)).domain
    fine = geometry.on_grid((32, 36), (96, 144)).masks((96, 144)).domain
    assert np.abs(fine.reshape(32, 3, 36, 4).mean(axis=(1, 3)) - coarse).mean() < 0.03
    mask = MaskRegion(coarse).on_grid((32, 36), (64, 72))
    np.testing.assert_array_equal(mask.masks((64, 72)).domain, np.kron(coarse, np.ones((2, 2), bool)))


numbers = st.floats(-60, 90)
sectors = st.builds(
    lambda row, column, inner, length, left, opening, aspect: Sector(
        row, column, inner, inner + length, left, left + opening, aspect
    ),
    numbers, numbers, st.floats(0, 60), st.floats(0.5, 120), st.floats(-180, 360), st.floats(0.5, 360),
    st.floats(0.4, 2.5),
)  # fmt: skip
rectangles = st.builds(
    lambda top, height, left, width, up: Rectangle(top, top + height, left, left + width, up),
    numbers, st.floats(0.1, 90), numbers, st.floats(0.1, 90), st.sampled_from(SIDES),
)  # fmt: skip
polygons = st.builds(
    lambda points: Polygon(tuple(points), (points[0], points[1])),
    st.lists(st.tuples(numbers, numbers), min_size=3, max_size=7, unique=True),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(sectors, rectangles, polygons), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_any_geometry_has_valid_masks_on_any_frame(geometry, shape):
    masks = geometry.masks(shape)
    assert masks.domain.shape == masks.source.shape == masks.sink.shape == shape
    assert not (masks.source & ~masks.domain).any()
    assert not (masks.sink & ~masks.domain).any()
    assert masks.source.any() == masks.sink.any() == masks.domain.any()
    assert geometry_from_dict(json.loads(json.dumps(geometry_to_dict(geometry)))) == geometry


@pytest.mark.parametrize("side", SIDES)
def test_solver_accepts_probes_at_all_sides(side, rng):
    frames = rng.random((2, 9, 12))
    masks = [rng.random((9, 12)) < 0.95, np.eye(9, 12, dtype=bool), None]
    solver = ConfidenceMapSolver()
    turned = [None if mask is None else np.ascontiguousarray(turn_to_top(mask, side)) for mask in masks]
    expected = turn_back(solver(np.ascontiguousarray(turn_to_top(frames, side)), *turned), side)
    np.testing.assert_array_equal(solver(frames, *masks, up=side), expected)
    np.testing.assert_array_equal(solver.solve(frames, *masks, up=side)[0], expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "circle"}, "'kind' must be one of rectangle, sector, polygon, found 'circle'"),
        ({"kind": "rectangle", "top": 1, "bottom": 5, "left": 2}, "A rectangle needs the key 'right'"),
        ({"kind": "rectangle", "top": 5, "bottom": 5, "left": 2, "right": 3}, "top < bottom and left < right"),
        ({"kind": "rectangle", "top": 1, "bottom": 5, "left": 2, "right": "3"}, "'right' must be a finite number"),
        (
            {"kind": "rectangle", "top": 1, "bottom": 5, "left": 2, "right": 3, "width": 1},
            "Unknown key 'width' of a rectangle",
        ),
        ({"kind": "rectangle", "top": 1, "bottom": 5, "left": 2, "right": 3, "up": "up"}, "'up' must be one of top"),
        ({"kind": "polygon", "vertices": [[1, 2], [3, 4]], "face": [[1, 2], [3, 4]]}, "at least three vertices"),
        ({"kind": "polygon", "vertices": [1, 2, 3], "face": [[1, 2], [3, 4]]}, "'vertices' must be a list of points"),
        ({**geometry_to_dict(SECTOR), "outer_radius": 4}, "0 <= inner_radius < outer_radius"),
        ({**geometry_to_dict(SECTOR), "right_angle": -50}, "left_angle < right_angle"),
        ({**geometry_to_dict(SECTOR), "aspect": 0}, "aspect of a sector must be positive"),
    ],
)
def test_impossible_numbers_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        geometry_from_dict(values)


def test_true_regions_of_real_screens(real_data):
    """The masks are those of the rule of the data set: a pixel belongs to the region if its centre does."""
    for entry in json.loads((real_data / "screens" / "truth.json").read_text())["frames"]:
        values = entry["geometry"]
        geometry = geometry_from_dict({"up": entry["up"], **values})
        assert geometry.up == entry["up"]
        if values["kind"] == "sector":
            shape = (int(values["apex_row"] + values["outer_radius"]) // 4, 200)
            smaller = geometry.on_grid((4 * shape[0], 800), shape)
            expected = sector_mask(
                shape,
                (smaller.apex_row, smaller.apex_column),
                (smaller.inner_radius, smaller.outer_radius),
                (smaller.left_angle, smaller.right_angle),
                smaller.aspect,
            )
            cut = smaller.masks(shape).domain
            assert (expected >= cut).all()
