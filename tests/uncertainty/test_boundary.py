"""Boundary deviations of labels that were moved by known amounts, and their variance components."""

import numpy as np
import pytest

from cm_lightning.uncertainty.boundary import between_rater_sd, boundary_deviation, boundary_sd, within_rater_sd

row, column = np.mgrid[:80, :90].astype(float)


def disc(radius: float, centre: tuple[float, float] = (40.3, 44.8), spacing: tuple[float, float] = (1.0, 1.0)):
    return np.hypot((row - centre[0]) * spacing[0], (column - centre[1]) * spacing[1]) < radius


def band(start: int, stop: int) -> np.ndarray:
    return (row >= start) & (row < stop)


def test_offsets_of_shifted_bands_are_exact():
    shifts = np.array([-3, -1, 0, 2, 5])
    labels = np.stack([2 * band(30 + shift, 50 + shift) for shift in shifts]).astype(np.uint8)
    result = boundary_deviation(labels, labels[2], 2, (0.3, 0.5))
    upper = result.points[:, 0] == 29.5
    assert upper.sum() == (~upper).sum() >= 89
    np.testing.assert_allclose(result.normals[upper], [[-1, 0]] * upper.sum(), atol=1e-6)
    np.testing.assert_allclose(result.offsets[:, ~upper], np.repeat(0.3 * shifts[:, None], upper.sum(), 1), atol=1e-4)
    np.testing.assert_allclose(result.offsets[:, upper], np.repeat(-0.3 * shifts[:, None], upper.sum(), 1), atol=1e-4)
    sd, share = boundary_sd(result.offsets)
    np.testing.assert_allclose(sd, 0.3 * np.std(shifts, ddof=1), rtol=1e-4)
    assert (share == 1).all()
    assert not result.corner.any()


def test_opposite_side_of_a_thin_band_is_ignored():
    """If a band is shifted by more than its thickness, its opposite side is nearer to the point."""
    labels = np.stack([band(30, 34), band(35, 39)]).astype(np.uint8)
    offsets = boundary_deviation(labels, labels[0], 1, (1, 1)).offsets[1]
    np.testing.assert_allclose(np.abs(offsets), 5, atol=1e-4)


def test_offsets_and_normals_of_discs():
    spacing = (0.4, 0.25)
    growth = np.array([-1.5, -0.6, 0.0, 0.9, 2.2])
    labels = np.stack([disc(7 + extra, spacing=spacing) for extra in growth]).astype(np.uint8)
    result = boundary_deviation(labels, labels[2], 1, spacing)
    radial = (result.points - (40.3, 44.8)) * spacing
    radial /= np.linalg.norm(radial, axis=1, keepdims=True)
    assert np.degrees(np.arccos((radial * result.normals).sum(axis=1))).max() < 6
    steps = np.linalg.norm(np.diff(result.points * spacing, axis=0), axis=1)
    assert steps.mean() == pytest.approx(0.25, rel=0.1)
    assert steps.std() < 0.03
    np.testing.assert_allclose(result.offsets.mean(axis=1), growth, atol=0.05)
    assert boundary_sd(result.offsets)[0].mean() == pytest.approx(np.std(growth, ddof=1), rel=0.03)


@pytest.mark.parametrize(("pixels", "overestimation"), [(1, 0.06), (2, 0.02), (4, 0.01)])
def test_quantisation_increases_the_sd_slightly(rng, pixels, overestimation):
    ratios = []
    for _ in range(8):
        centre, shifts = 40 + rng.uniform(-0.5, 0.5, 2), rng.normal(0, pixels, 100)
        angle = rng.uniform(-np.pi / 6, np.pi / 6)
        across = (row - centre[0]) * np.cos(angle) + (column - centre[1]) * np.sin(angle)
        labels = (across[None] < shifts[:, None, None]).astype(np.uint8)
        result = boundary_deviation(labels, (across < 0).astype(np.uint8), 1, (1, 1), reach=20)
        middle = (np.abs(result.points - 40) < 15).all(axis=1)
        ratios.append(boundary_sd(result.offsets[:, middle])[0].mean() / shifts.std(ddof=1))
    assert np.mean(ratios) == pytest.approx(1 + overestimation / 2, abs=overestimation / 2)


def test_no_crossing_within_reach_is_nan():
    labels = np.stack([band(30, 50), band(32, 54), np.zeros((80, 90))]).astype(np.uint8)
    result = boundary_deviation(labels, labels[0], 1, (1, 1), reach=3)
    lower = result.points[:, 0] > 40
    assert np.isnan(result.offsets[2]).all()
    assert np.isnan(result.offsets[1, lower]).all()
    sd, share = boundary_sd(result.offsets)
    np.testing.assert_allclose(share, np.where(lower, 1 / 3, 2 / 3))
    np.testing.assert_allclose(sd, np.where(lower, np.nan, np.sqrt(2)), rtol=1e-4)


def test_borders_of_image_and_domain_are_not_boundaries():
    label = (row >= 20).astype(np.uint8)
    result = boundary_deviation(label[None], label, 1, (1, 1))
    assert set(result.points[:, 0]) == {19.5}
    domain = column > row / 2
    inside = boundary_deviation((label * domain)[None].astype(np.uint8), label * domain, 1, (1, 1), domain=domain)
    assert set(np.round(inside.points[:, 0], 1)) == {19.5}
    assert 70 < len(inside.points) < 80
    assert boundary_deviation(label[None], np.zeros_like(label), 1, (1, 1)).offsets.shape == (1, 0)


def test_corners_are_marked():
    square = ((np.abs(row - 40) < 20) & (np.abs(column - 40) < 20)).astype(np.uint8)
    result = boundary_deviation(square[None], square, 1, (1, 1))
    to_corner = np.linalg.norm(np.abs(result.points - 40) - 19.5, axis=1)
    assert result.corner[to_corner < 1].all()
    assert not result.corner[to_corner > 6].any()


def test_variance_components_by_hand():
    # Two raters with repeats 1, 3 and 6, 6: MSW = 2 / 2, MSB = 2 * (2² + 2²), n0 = 2.
    offsets = np.array([[1.0], [3.0], [6.0], [6.0]])
    raters = ("anna", "anna", "ben", "ben")
    np.testing.assert_allclose(within_rater_sd(offsets, raters), [1.0])
    np.testing.assert_allclose(between_rater_sd(offsets, raters), [np.sqrt((16 - 1) / 2)])
    # Without the last repeat: MSW = 2 / 1, MSB = 2 (2 - 10/3)² + (6 - 10/3)², n0 = 3 - 5/3.
    offsets[3] = np.nan
    np.testing.assert_allclose(within_rater_sd(offsets, raters), [np.sqrt(2)])
    np.testing.assert_allclose(between_rater_sd(offsets, raters), [np.sqrt((32 / 3 - 2) / (4 / 3))])


def test_undefined_variance_components_are_nan():
    offsets = np.arange(4.0)[:, None]
    assert np.isnan(between_rater_sd(offsets, ("anna",) * 4)).all()
    assert np.isfinite(within_rater_sd(offsets, ("anna",) * 4)).all()
    assert np.isnan(within_rater_sd(offsets, tuple("abcd"))).all()
    assert np.isnan(between_rater_sd(offsets, tuple("abcd"))).all()


def test_variance_components_of_simulated_raters_are_recovered(rng):
    repeats = [3, 5, 8, 4, 10, 6]
    raters = [name for name, number in zip("abcdef", repeats, strict=True) for _ in range(number)]
    rater_mean = np.repeat(rng.normal(0, 1.5, (6, 4000)), repeats, axis=0)
    offsets = rater_mean + rng.normal(0, 0.7, rater_mean.shape)
    assert np.mean(within_rater_sd(offsets, raters) ** 2) == pytest.approx(0.7**2, rel=0.03)
    assert np.mean(between_rater_sd(offsets, raters) ** 2) == pytest.approx(1.5**2, rel=0.05)
