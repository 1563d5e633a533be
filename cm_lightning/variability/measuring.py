"""Measuring sampled images, one after the other, against labels of raters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.data.raters import RATER_PATTERN, RaterLabels, read_rater_labels
from cm_lightning.errors import InputError
from cm_lightning.io import Axes
from cm_lightning.uncertainty.agreement import reliability
from cm_lightning.variability.frame import ConsensusName, Frame
from cm_lightning.variability.image_sampler import CONVERGENCE, SampledImage
from cm_lightning.variability.model_measures import depth_profile, measure_model
from cm_lightning.variability.rater_measures import Boundary, measure_raters
from cm_lightning.variability.results import Key, ShownImage, Variability
from cm_lightning.variability.sampling import Sampled

Row = dict[str, Any]


def measure(
    images: Sequence[Sampled],
    raters: Path | None,
    pattern: str = RATER_PATTERN,
    consensus: ConsensusName = "majority",
) -> Variability:
    """Measure all sampled images, one after the other.

    Args:
        images: Those of all models and seeds.
        raters: Folder of repeated labels, or None.
        pattern: How a file's name tells its rater and the repeat.
        consensus: How labels are made one.

    Returns:
        Long tables, and the images to show.

    Raises:
        InputError: Images measure in different units.
    """
    by_image: dict[Key, list[Sampled]] = {}
    for one in sorted(images, key=lambda one: (one.case.id, one.frame)):
        by_image.setdefault((one.case.id, one.frame), []).append(one)
    units, patients, heights = set(), {}, {}
    for key, versions in by_image.items():
        image = SampledImage.load(versions[0].path)  # one at a time: all together may not fit into memory
        units.add(image.unit)
        patients[key], heights[key] = image.patient, len(image.domain) * image.spacing[0]
    if len(units) > 1:
        raise InputError(f"The images do not share one unit: {', '.join(sorted(units))}. Compare them apart.")
    deepest = max(heights.values())
    rater_values: list[Row] = []
    of_models: dict[str, list[Row]] = {name: [] for name in ("measures", "profiles", "bins", "convergence")}
    boundaries: dict[Key, Boundary] = {}
    labels: dict[Key, RaterLabels] = {}
    shown: dict[Key, ShownImage] = {}
    for key, versions in tqdm(by_image.items(), desc="Comparing", unit="image"):
        if raters is not None and key not in labels:
            labels = _read_raters(versions[0], [number for case, number in by_image if case == key[0]], raters, pattern)
        sampled = [SampledImage.load(one.path) for one in versions]
        frame = _frame(sampled, labels.get(key), len(versions[0].classes) + 1, consensus)
        if not frame.labels.any():
            continue  # nobody labelled anything: there is nothing to agree on
        about = {"patient": patients[key], "case": key[0], "frame": key[1]}
        if frame.repeated:
            values, boundaries[key] = measure_raters(frame, _other_map(key, frame, by_image, patients))
            rater_values += [{**about, "measure": name, "value": value} for name, value in values.items()]
        for one, image in zip(versions, sampled, strict=True):
            same = [other.single for who, other in zip(versions, sampled, strict=True) if who.model == one.model]
            ensemble = np.mean(same, axis=0) if len(same) > 1 else None
            rows = _model_rows(frame, image, ensemble, deepest, {"model": one.model, "seed": one.seed, **about})
            for name, of_table in rows.items():
                of_models[name] += of_table
        if patients[key] not in {patients[other] for other in shown}:
            by_model: dict[str, SampledImage] = {}
            for one, image in zip(versions, sampled, strict=True):
                by_model.setdefault(one.model, image)
            shown[key] = ShownImage(frame, by_model)
    return Variability(
        class_names=list(images[0].classes),
        unit=units.pop(),
        deepest=deepest,
        shown=shown,
        boundaries=boundaries,
        raters=pd.DataFrame(rater_values),
        **{name: pd.DataFrame(rows) for name, rows in of_models.items()},
    )


def _model_rows(
    frame: Frame, image: SampledImage, ensemble: NDArray[np.floating[Any]] | None, deepest: float, about: Row
) -> dict[str, list[Row]]:
    """Measure what one network says of an image: the rows of every table, each with what it is about."""
    values = measure_model(frame, image, ensemble)
    profiles = depth_profile(frame, image, deepest)
    counted = zip(*reliability(frame.distribution[:, frame.band], image.mean[:, frame.band]), strict=True)
    steps = zip(CONVERGENCE, image.convergence.tolist(), strict=True)
    return {
        "measures": [{**about, "measure": name, "value": value} for name, value in values.items()],
        "profiles": [
            {**about, "quantity": name, "part": part, "value": value}
            for name, profile in profiles.items()
            for part, value in enumerate(profile)
        ],
        "bins": [
            {**about, "bin": number, "count": count, "probability": probability, "share": share}
            for number, (count, probability, share) in enumerate(counted)
        ],
        "convergence": [{**about, **{str(number): value for number, value in steps}}],
    }


def _frame(
    sampled: Sequence[SampledImage], labels: RaterLabels | None, n_classes: int, consensus: ConsensusName
) -> Frame:
    """An image with its labels, seen by a model that had its confidence map where there is one."""
    image = next((one for one in sampled if np.isfinite(one.confidence).any()), sampled[0])
    if labels is None:
        return Frame(image, image.label[None], ("label",), n_classes)
    return Frame(image, labels.labels, labels.raters, n_classes, consensus)


def _read_raters(one: Sampled, frames: list[int], raters: Path, pattern: str) -> dict[Key, RaterLabels]:
    """Read the labels of all sampled frames of a case at once."""
    volume = len(one.axes.split()) == 3
    read = read_rater_labels(raters, one.case, Axes(one.axes), one.classes, pattern, frames if volume else None)
    if not volume:
        return {(one.case.id, 0): read}
    return {
        (one.case.id, frame): RaterLabels(np.ascontiguousarray(read.labels[..., place]), read.raters)
        for place, frame in enumerate(frames)
    }


def _other_map(
    key: Key, frame: Frame, by_image: dict[Key, list[Sampled]], patients: dict[Key, str]
) -> NDArray[np.float32]:
    """Confidence map of an image of another patient, in this image's shape; NaN where there is none."""
    others = [other for other in by_image if patients[other] != patients[key]]
    if not others:
        return np.full(frame.image.confidence.shape, np.nan, np.float32)
    drawn = others[int(np.random.default_rng([key[1], *key[0].encode()]).integers(len(others)))]
    maps = (SampledImage.load(one.path).confidence for one in by_image[drawn])
    found = next((one for one in maps if np.isfinite(one).any()), None)
    if found is None:
        return np.full(frame.image.confidence.shape, np.nan, np.float32)
    places = [(np.arange(n) * m) // n for n, m in zip(frame.image.confidence.shape, found.shape, strict=True)]
    return found[np.ix_(*places)]
