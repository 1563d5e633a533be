"""The question whether confidence predicts rater variability, asked of simulated images with and without an effect."""

import numpy as np
import pytest
from scipy import ndimage

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom
from cm_lightning.data.confidence_maps import frame_maps
from cm_lightning.data.phantom.raters import _Deformation, _Displacement
from cm_lightning.data.reading import image_geometry
from cm_lightning.statistics.signed_rank import signed_rank_p
from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage
from cm_lightning.variability.rater_measures import measure_raters

SHAPE, SPACING = (96, 96), (0.5, 0.5)
REPEATS, IMAGES, PATIENTS = 20, 120, 12


def scatter(kind, label, confidence):
    """Return the SDs of the boundary in mm along the lateral direction and along the beam, at every pixel."""
    ones = np.ones(SHAPE)
    match kind:
        case "nothing":
            return 0.8 * ones, 0.8 * ones
        case "depth":
            depth = (np.arange(SHAPE[0])[:, None] + 0.5) * SPACING[0] / 10 * ones
            return (0.3 + 0.3 * depth,) * 2
        case "class":  # twice as much on the two vessels as on the gland
            distances = [ndimage.distance_transform_edt(label != index) for index in (1, 2, 3)]
            return (np.where(np.argmin(distances, axis=0) == 0, 0.6, 1.2),) * 2
        case "orientation":
            return 0.6 * ones, 1.2 * ones
        case "confidence":  # +1 mm where confidence is 0
            return (0.5 + 1.0 * (1 - np.nan_to_num(confidence)),) * 2


def partial_correlations(kinds):
    """Return the adjusted correlations of boundary SD and entropy of every image, ``(kinds, images, 2)``."""
    solver, unused = ConfidenceMapSolver(), np.zeros(1, np.float32)
    field = _Displacement((*SHAPE, 1), (*SPACING, 1.0), 8.0)
    correlations = np.empty((len(kinds), IMAGES, 2))
    for number in range(IMAGES):
        volume = Phantom("thyroid", patients=1, size=(*SHAPE, 1), spacing=(*SPACING, 2.0), seed=number).simulate(0)
        image = volume.image[..., 0]
        truth = np.searchsorted([1, 2, 3], volume.label[..., 0], side="right").astype(np.uint8)
        (confidence,) = next(frame_maps(solver, image, image_geometry(image, "whole", SPACING)))
        deform = _Deformation(truth[..., None], (*SPACING, 1.0), volume.domain)
        for index, kind in enumerate(kinds):
            sd = np.stack(scatter(kind, truth, confidence), axis=-1)[None].astype(np.float32)
            labels = np.stack([deform(sd * field([number, index, repeat]))[..., 0] for repeat in range(REPEATS)])
            sampled = SampledImage(
                case="a",
                patient="a",
                frame=0,
                unit="mm",
                spacing=SPACING,
                image=image / 255,
                domain=volume.domain,
                label=labels[0],
                confidence=confidence.astype(np.float32),
                samples=labels[:1],
                mean=unused,
                expected_entropy=unused,
                single=unused,
                augmented=unused,
                convergence=unused,
            )
            frame = Frame(sampled, labels, ("rater",) * REPEATS, 4)
            measures, _ = measure_raters(frame, np.full(SHAPE, np.nan, np.float32))
            correlations[index, number] = measures["sd_given"], measures["entropy_given"]
    return correlations


@pytest.mark.slow
def test_only_an_effect_of_confidence_is_found():
    """Studies of 12 patients, drawn from 120 images, with 20 labels each."""
    generator = np.random.default_rng(0)
    kinds = ("nothing", "depth", "class", "orientation", "confidence")
    for kind, values in zip(kinds, partial_correlations(kinds), strict=True):
        studies = [values[generator.choice(IMAGES, PATIENTS, replace=False)] for _ in range(500)]
        for column, power in enumerate((0.3, 0.4)):
            rejected = np.mean([signed_rank_p(study[:, column]) < 0.05 for study in studies])
            if kind == "confidence":
                assert rejected > power
                assert values[:, column].mean() < 0
            else:
                assert 0.02 <= rejected <= 0.08, (kind, column)
