"""Measures of one image for networks that vary like raters, and for overconfident networks."""

import math

import numpy as np
import pytest
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom
from cm_lightning.data.confidence_maps import frame_maps
from cm_lightning.data.phantom import RaterModel
from cm_lightning.data.reading import image_geometry
from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage
from cm_lightning.variability.model_measures import depth_profile, measure_model
from cm_lightning.variability.rater_measures import measure_raters

SHAPE, SPACING = (100, 120), (0.5, 0.4)


def layer_labels(generator, number, sd):
    """Return labels of a layer whose boundaries are displaced smoothly, with the given SD in pixels."""
    rows = np.arange(SHAPE[0])[:, None]
    labels = np.zeros((number, *SHAPE), dtype=np.uint8)
    for label in labels:
        noise = ndimage.gaussian_filter1d(generator.standard_normal((2, SHAPE[1])), 15, axis=1, mode="wrap")
        # The SD of the filtered noise is 0.137.
        upper, lower = (row + sd * shift / 0.137 for row, shift in zip((35, 65), noise, strict=True))
        label[(rows > upper) & (rows < lower)] = 1
    return labels


def sampled_image(samples, confidence=None):
    """Return an image with the given samples of a network."""
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
    return layer_labels(rng, 60, 3.0)


def frame_of(labels, raters=None):
    return Frame(sampled_image(labels), labels, raters or ("rater",) * len(labels), 2)


def test_network_that_varies_like_raters(labels, rng):
    measures = measure_model(frame_of(labels), sampled_image(layer_labels(rng, 60, 3.0)), None)
    for name in ("diversity", "boundary_ratio"):
        assert measures[name] == pytest.approx(1, abs=0.15)
    assert measures["ncc"] > 0.9
    assert abs(measures["energy"]) < 0.01
    assert measures["disagreement_auroc/MC entropy"] > 0.95
    assert measures["ece"] < 0.05


def test_overconfident_network(labels, rng):
    calibrated, overconfident = (
        measure_model(frame_of(labels), sampled_image(layer_labels(rng, 60, sd)), None) for sd in (3.0, 0.5)
    )
    assert overconfident["diversity"] < 0.4
    assert overconfident["boundary_ratio"] < 0.5
    for name in ("energy", "brier", "divergence", "ece", "area_crps"):
        assert overconfident[name] > calibrated[name]


def test_samples_that_equal_the_labels_have_optimal_measures(labels):
    measures = measure_model(frame_of(labels), sampled_image(labels), None)
    assert measures["ncc"] == pytest.approx(1)
    assert measures["boundary_slope"] == pytest.approx(1)
    assert measures["brier"] == pytest.approx(0)
    assert measures["area_distance"] == pytest.approx(0)
    assert "ensemble over seeds" not in "".join(measures)


def test_uncertainty_is_compared_with_errors_without_repeated_labels(labels, rng):
    sampled = sampled_image(layer_labels(rng, 60, 3.0))
    frame = Frame(sampled, labels[:1], ("label",), 2)
    measures = measure_model(frame, sampled, sampled.mean)
    assert "diversity" not in measures
    assert math.isnan(measures["error_auroc/MC entropy"])  # the label equals the prediction
    with_errors = SampledImage(**{**vars(sampled), "label": labels[0]})
    measures = measure_model(frame, with_errors, sampled.mean)
    assert measures["error_auroc/MC entropy"] > 0.7
    assert measures["error_auroc/ensemble over seeds"] == measures["error_auroc/MC entropy"]


def test_variability_within_and_between_raters(rng):
    """One rater varies little and the other two do not vary, so that agreement within raters is higher."""
    second, third = layer_labels(rng, 1, 3.0), layer_labels(rng, 1, 3.0)
    labels = np.concatenate([layer_labels(rng, 10, 0.5), np.repeat(second, 5, axis=0), np.repeat(third, 5, axis=0)])
    raters = ("a",) * 10 + ("b",) * 5 + ("c",) * 5
    measures, boundary = measure_raters(frame_of(labels, raters), np.full(SHAPE, np.nan, np.float32))
    assert measures["intra_dice"] > measures["inter_dice"]
    assert measures["within_rater_sd"] < measures["between_rater_sd"]
    assert math.isnan(measures["sd_given_shuffled"])
    assert len(boundary.sd) == len(boundary.depths[0]) > 100
    assert np.isfinite(boundary.sd).all()


def test_all_boundary_sds_have_one_definition(labels):
    """With one rater, all variability is within the rater."""
    measures, boundary = measure_raters(frame_of(labels), np.full(SHAPE, np.nan, np.float32))
    assert measures["boundary_sd"] == pytest.approx(measures["within_rater_sd"], rel=1e-6)
    assert measures["boundary_sd"] > boundary.sd.mean()  # a root of the mean variance, not a mean of SDs


def test_depth_profile_is_highest_at_the_boundaries(labels):
    profile = depth_profile(frame_of(labels), sampled_image(labels), deepest=50.0, bins=10)
    np.testing.assert_allclose(profile["doubt"], profile["disagreement"], equal_nan=True)
    assert np.nanargmax(profile["doubt"]) in (3, 6)
    assert np.isnan(profile["doubt"][0])
    assert np.nanmax(profile["error"]) == 0
    known = np.isfinite(profile["confidence"])
    assert (np.diff(profile["confidence"][known]) < 0).all()


def test_identical_labels_have_no_diversity_or_boundary_slope(labels, rng):
    identical = np.repeat(labels[:1], 3, axis=0)
    measures = measure_model(frame_of(identical), sampled_image(layer_labels(rng, 60, 3.0)), None)
    assert math.isnan(measures["boundary_slope"])
    assert math.isnan(measures["diversity"])


def test_staple_consensus_is_similar_to_majority(labels):
    frame = Frame(sampled_image(labels), labels, ("rater",) * len(labels), 2, "staple")
    assert frame.consensus.shape == SHAPE
    assert (frame.consensus == frame_of(labels).consensus).mean() > 0.97


@pytest.mark.parametrize("probe", ["linear", "convex"])
def test_raters_that_depend_only_on_depth_show_no_effect_of_confidence(probe):
    """Measure simulated images, their confidence maps and their raters, for probes with straight and fan geometry.

    Row and distance to the probe are equal for the linear probe, but not for the convex one.
    """
    phantom = Phantom("thyroid", patients=8, size=(96, 96, 1), spacing=(0.5, 0.5, 2.0), probe=probe)
    raters, measures = RaterModel(repeats=20, sd=0.3, depth=0.3), []
    for patient in range(phantom.patients):
        volume = phantom.simulate(patient)
        image, label = volume.image[..., 0], np.searchsorted([1, 2, 3], volume.label[..., 0], side="right")
        geometry = image_geometry(image, "whole" if probe == "linear" else "convex", (0.5, 0.5))
        (confidence,) = next(frame_maps(ConfidenceMapSolver(), image, geometry))
        simulated = raters.draw(label.astype(np.uint8), (0.5, 0.5), str(patient), domain=volume.domain)
        labels = np.stack([repeat.label for repeat in simulated])
        # Raters are measured without the outputs of networks.
        unused = {name: np.zeros(1, np.float32) for name in ("mean", "expected_entropy", "single", "augmented")}
        sampled = SampledImage(
            case=str(patient),
            patient=str(patient),
            frame=0,
            unit="mm",
            spacing=(0.5, 0.5),
            image=image / 255,
            domain=volume.domain,
            label=labels[0],
            samples=labels[:1],
            **{"confidence": confidence.astype(np.float32), "convergence": np.zeros(8), **unused},
        )
        measures.append(measure_raters(Frame(sampled, labels, ("rater",) * 20, 4), confidence)[0])
    for name in ("sd", "entropy"):
        plain, partial = (np.array([values[f"{name}_{kind}"] for values in measures]) for kind in ("alone", "given"))
        partial = partial[np.isfinite(partial)]  # images with few points cannot be adjusted
        assert len(partial) >= 6
        assert signed_rank_p(partial) > 0.05
        assert name != "sd" or abs(partial.mean()) < abs(plain.mean())
    assert signed_rank_p(np.array([values["sd_alone"] for values in measures])) < 0.05
