"""Measures of one image: networks that are like the raters, and networks that are not."""

import math

import numpy as np
import pytest
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom
from cm_lightning.data.confidence_maps import frame_maps
from cm_lightning.data.phantom import RaterModel
from cm_lightning.data.reading import image_geometry
from cm_lightning.evaluation.statistics import signed_rank_p
from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage
from cm_lightning.variability.model_measures import depth_profile, measure_model
from cm_lightning.variability.rater_measures import measure_raters

SHAPE, SPACING = (100, 120), (0.5, 0.4)


def band(generator, number, spread):
    """Labels of a layer whose borders move smoothly."""
    rows = np.arange(SHAPE[0])[:, None]
    found = np.zeros((number, *SHAPE), dtype=np.uint8)
    for label in found:
        noise = ndimage.gaussian_filter1d(generator.standard_normal((2, SHAPE[1])), 15, axis=1, mode="wrap")
        upper, lower = (middle + spread * n / 0.137 for middle, n in zip((35, 65), noise, strict=True))
        label[(rows > upper) & (rows < lower)] = 1
    return found


def image(samples, confidence=None):
    """What a network says that gives these samples."""
    mean = np.stack([(samples == 0).mean(axis=0), (samples == 1).mean(axis=0)]).astype(np.float32)
    ramp = np.broadcast_to(np.linspace(1, 0, SHAPE[0])[:, None], SHAPE).astype(np.float32)
    return SampledImage(
        case="a",
        patient="p",
        frame=0,
        unit="mm",
        spacing=SPACING,
        image=np.zeros(SHAPE, np.float32),
        domain=np.ones(SHAPE, dtype=bool),
        label=(mean[1] > 0.5).astype(np.uint8),
        confidence=ramp if confidence is None else confidence,
        samples=samples,
        mean=mean,
        expected_entropy=np.zeros(SHAPE, np.float32),
        single=mean,
        augmented=mean,
        convergence=np.zeros(8),
    )


@pytest.fixture
def labels(rng):
    return band(rng, 60, 3.0)


def frame(labels, raters=None):
    return Frame(image(labels), labels, raters or ("one",) * len(labels), 2)


def test_a_network_that_varies_as_raters_do(labels, rng):
    found = measure_model(frame(labels), image(band(rng, 60, 3.0)), None)
    for name in ("diversity", "boundary_ratio"):
        assert found[name] == pytest.approx(1, abs=0.15)
    assert found["ncc"] > 0.9
    assert abs(found["energy"]) < 0.01
    assert found["disagreement_auroc/MC entropy"] > 0.95
    assert found["ece"] < 0.05


def test_a_network_that_is_too_sure(labels, rng):
    alike, sure = (measure_model(frame(labels), image(band(rng, 60, spread)), None) for spread in (3.0, 0.5))
    assert sure["diversity"] < 0.4
    assert sure["boundary_ratio"] < 0.5
    for name in ("energy", "brier", "divergence", "ece", "area_crps"):
        assert sure[name] > alike[name]


def test_the_labels_themselves_are_the_best_that_can_be(labels):
    found = measure_model(frame(labels), image(labels), None)
    assert found["ncc"] == pytest.approx(1)
    assert found["boundary_slope"] == pytest.approx(1)
    assert found["brier"] == pytest.approx(0)
    assert found["area_distance"] == pytest.approx(0)
    assert "ensemble over seeds" not in "".join(found)


def test_without_repeats_doubt_is_held_against_errors(labels, rng):
    one = labels[:1]
    sampled = image(band(rng, 60, 3.0))
    found = measure_model(Frame(sampled, one, ("label",), 2), sampled, sampled.mean)
    assert "diversity" not in found
    assert math.isnan(found["error_auroc/MC entropy"])  # its own mean is its label: nothing is wrong
    wrong = Frame(sampled, one, ("label",), 2), SampledImage(**{**vars(sampled), "label": one[0]})
    found = measure_model(*wrong, sampled.mean)
    assert found["error_auroc/MC entropy"] > 0.7
    assert found["error_auroc/ensemble over seeds"] == found["error_auroc/MC entropy"]


def test_raters_are_kept_apart_and_confidence_is_asked_for(rng):
    """One rater draws with little scatter and another with none: intra is higher than inter."""
    steady, other = band(rng, 1, 3.0), band(rng, 1, 3.0)
    labels = np.concatenate([band(rng, 10, 0.5), np.repeat(steady, 5, axis=0), np.repeat(other, 5, axis=0)])
    raters = ("a",) * 10 + ("b",) * 5 + ("c",) * 5
    found, boundary = measure_raters(frame(labels, raters), np.full(SHAPE, np.nan, np.float32))
    assert found["intra_dice"] > found["inter_dice"]
    assert found["within_rater_sd"] < found["between_rater_sd"]
    assert math.isnan(found["sd_given_shuffled"])
    assert len(boundary.sd) == len(boundary.depths[0]) > 100
    assert np.isfinite(boundary.sd).all()


def test_profile_over_depth_is_where_the_boundaries_are(labels):
    profile = depth_profile(frame(labels), image(labels), deepest=50.0, bins=10)
    np.testing.assert_allclose(profile["doubt"], profile["disagreement"], equal_nan=True)
    assert np.nanargmax(profile["doubt"]) in (3, 6)
    assert np.isnan(profile["doubt"][0])
    assert np.nanmax(profile["error"]) == 0
    known = np.isfinite(profile["confidence"])
    assert (np.diff(profile["confidence"][known]) < 0).all()


def test_labels_that_all_agree_have_no_spread_to_compare_with(labels, rng):
    agreeing = np.repeat(labels[:1], 3, axis=0)
    found = measure_model(frame(agreeing), image(band(rng, 60, 3.0)), None)
    assert math.isnan(found["boundary_slope"])
    assert math.isnan(found["diversity"])


def test_consensus_can_be_staple(labels):
    one = Frame(image(labels), labels, ("one",) * len(labels), 2, "staple")
    assert one.consensus.shape == SHAPE
    assert (one.consensus == frame(labels).consensus).mean() > 0.97


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_simulated_raters_who_go_by_depth_alone_show_no_effect_of_confidence(probe):
    """From simulated images over maps and labels to the answer, whether or not rows are distances to the probe."""
    phantom = Phantom("thyroid", patients=8, size=(96, 96, 1), spacing=(0.5, 0.5, 2.0), probe=probe)
    raters, found = RaterModel(repeats=20, sd=0.3, depth=0.3), []
    for patient in range(phantom.patients):
        volume = phantom.simulate(patient)
        picture, label = volume.image[..., 0], np.searchsorted([1, 2, 3], volume.label[..., 0], side="right")
        geometry = image_geometry(picture, "auto", (0.5, 0.5))
        (confidence,) = next(frame_maps(ConfidenceMapSolver(), picture, geometry))
        drawn = raters.draw(label.astype(np.uint8), (0.5, 0.5), str(patient), domain=volume.domain)
        labels = np.stack([one.label for one in drawn])
        blank = {name: np.zeros(1, np.float32) for name in ("mean", "expected_entropy", "single", "augmented")}
        seen = SampledImage(
            case=str(patient),
            patient=str(patient),
            frame=0,
            unit="mm",
            spacing=(0.5, 0.5),
            image=picture / 255,
            domain=volume.domain,
            label=labels[0],
            samples=labels[:1],
            **{"confidence": confidence.astype(np.float32), "convergence": np.zeros(8), **blank},
        )
        found.append(measure_raters(Frame(seen, labels, ("one",) * 20, 4), confidence)[0])
    for name in ("sd", "entropy"):
        alone, given = (np.array([one[f"{name}_{kind}"] for one in found]) for kind in ("alone", "given"))
        assert signed_rank_p(given) > 0.05
        assert abs(given.mean()) < abs(alone.mean())
    assert signed_rank_p(np.array([one["sd_alone"] for one in found])) < 0.05
