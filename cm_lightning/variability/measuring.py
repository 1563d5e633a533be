"""Comparison of all sampled images with the labels of raters."""

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
    """Measure all sampled images.

    Args:
        images: Sampled images of all models and seeds.
        raters: Folder of repeated labels, or None.
        pattern: Regular expression for the names of label files; see :func:`cm_lightning.data.raters.find_rater_files`.
        consensus: Method of the consensus of labels.

    Returns:
        Long tables of all measures, and the images to show.

    Raises:
        InputError: The images have different units, or labels cannot be read.
    """
    by_image: dict[Key, list[Sampled]] = {}
    for image in sorted(images, key=lambda image: (image.case.id, image.frame)):
        by_image.setdefault((image.case.id, image.frame), []).append(image)
    units, patients, heights = set(), {}, {}
    for key, versions in by_image.items():
        loaded = SampledImage.load(versions[0].path)  # all images together may not fit into memory
        units.add(loaded.unit)
        patients[key], heights[key] = loaded.patient, len(loaded.domain) * loaded.spacing[0]
    if len(units) > 1:
        raise InputError(f"The images have different units: {', '.join(sorted(units))}; expected a single one.")
    deepest = max(heights.values())
    rater_values: list[Row] = []
    model_tables: dict[str, list[Row]] = {name: [] for name in ("measures", "profiles", "bins", "convergence")}
    boundaries: dict[Key, Boundary] = {}
    labels: dict[Key, RaterLabels] = {}
    shown: dict[Key, ShownImage] = {}
    for key, versions in tqdm(by_image.items(), desc="Comparing", unit="image"):
        if raters is not None and key not in labels:
            labels = _read_raters(versions[0], [number for case, number in by_image if case == key[0]], raters, pattern)
        sampled = [SampledImage.load(version.path) for version in versions]
        frame = _frame(sampled, labels.get(key), len(versions[0].classes) + 1, consensus)
        if not frame.labels.any():
            continue  # without any label, agreement is not defined
        image_columns = {"patient": patients[key], "case": key[0], "frame": key[1]}
        if frame.repeated:
            values, boundaries[key] = measure_raters(frame, _other_map(key, frame, by_image, patients))
            rater_values += [{**image_columns, "measure": name, "value": value} for name, value in values.items()]
        for version, loaded in zip(versions, sampled, strict=True):
            seeds = [
                other.single
                for other_version, other in zip(versions, sampled, strict=True)
                if other_version.model == version.model
            ]
            ensemble = np.mean(seeds, axis=0) if len(seeds) > 1 else None
            columns = {"model": version.model, "seed": version.seed, "fold": version.fold, **image_columns}
            rows = _model_rows(frame, loaded, ensemble, deepest, columns)
            for name, table_rows in rows.items():
                model_tables[name] += table_rows
        if patients[key] not in {patients[other] for other in shown}:
            by_model: dict[str, SampledImage] = {}
            for version, loaded in zip(versions, sampled, strict=True):
                by_model.setdefault(version.model, loaded)
            shown[key] = ShownImage(frame, by_model)
    return Variability(
        class_names=list(images[0].classes),
        unit=units.pop(),
        deepest=deepest,
        shown=shown,
        boundaries=boundaries,
        raters=pd.DataFrame(rater_values),
        **{name: pd.DataFrame(rows) for name, rows in model_tables.items()},
    )


def _model_rows(
    frame: Frame, image: SampledImage, ensemble: NDArray[np.floating[Any]] | None, deepest: float, columns: Row
) -> dict[str, list[Row]]:
    """Measure the samples of one network for an image, and return the rows of each table with their key columns."""
    values = measure_model(frame, image, ensemble)
    profiles = depth_profile(frame, image, deepest)
    reliability_bins = zip(*reliability(frame.distribution[:, frame.band], image.mean[:, frame.band]), strict=True)
    steps = zip(CONVERGENCE, image.convergence.tolist(), strict=True)
    return {
        "measures": [{**columns, "measure": name, "value": value} for name, value in values.items()],
        "profiles": [
            {**columns, "quantity": name, "part": part, "value": value}
            for name, profile in profiles.items()
            for part, value in enumerate(profile)
        ],
        "bins": [
            {**columns, "bin": number, "count": count, "probability": probability, "share": share}
            for number, (count, probability, share) in enumerate(reliability_bins)
        ],
        "convergence": [{**columns, **{str(number): value for number, value in steps}}],
    }


def _frame(
    sampled: Sequence[SampledImage], labels: RaterLabels | None, n_classes: int, consensus: ConsensusName
) -> Frame:
    """Combine labels with the samples of a model that has a confidence map, if there is one."""
    image = next((item for item in sampled if np.isfinite(item.confidence).any()), sampled[0])
    if labels is None:
        return Frame(image, image.label[None], ("label",), n_classes)
    return Frame(image, labels.labels, labels.raters, n_classes, consensus)


def _read_raters(sampled: Sampled, frames: list[int], raters: Path, pattern: str) -> dict[Key, RaterLabels]:
    """Read the labels of all sampled frames of a case at once."""
    case, is_volume = sampled.case, len(sampled.axes.split()) == 3
    stack = read_rater_labels(raters, case, Axes(sampled.axes), sampled.classes, pattern, frames if is_volume else None)
    if not is_volume:
        return {(case.id, 0): stack}
    return {
        (case.id, frame): RaterLabels(np.ascontiguousarray(stack.labels[..., position]), stack.raters)
        for position, frame in enumerate(frames)
    }


def _other_map(
    key: Key, frame: Frame, by_image: dict[Key, list[Sampled]], patients: dict[Key, str]
) -> NDArray[np.float32]:
    """Return the confidence map of a random image of another patient, in the shape of this image; NaN without one."""
    others = [other for other in by_image if patients[other] != patients[key]]
    if not others:
        return np.full(frame.image.confidence.shape, np.nan, np.float32)
    donor = others[int(np.random.default_rng([key[1], *key[0].encode()]).integers(len(others)))]
    maps = (SampledImage.load(version.path).confidence for version in by_image[donor])
    donor_map = next((values for values in maps if np.isfinite(values).any()), None)
    if donor_map is None:
        return np.full(frame.image.confidence.shape, np.nan, np.float32)
    shapes = zip(frame.image.confidence.shape, donor_map.shape, strict=True)
    return donor_map[np.ix_(*((np.arange(size) * donor_size) // size for size, donor_size in shapes))]
