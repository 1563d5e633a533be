"""How networks' variability compares with raters', and whether confidence maps predict it: ``variability``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.cases import Case, file_digest
from cm_lightning.data.raters import RATER_PATTERN, RaterLabels, find_rater_files, read_rater_labels
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.evaluation.report import choose_comparisons
from cm_lightning.io import Axes, read_image
from cm_lightning.models.networks import takes_any_grid
from cm_lightning.runs import ExperimentFolder, FoldFolder, find_experiments
from cm_lightning.uncertainty import MCDropout
from cm_lightning.uncertainty.agreement import reliability
from cm_lightning.variability.image_sampler import CONVERGENCE, ImageSampler, SampledImage
from cm_lightning.variability.measures import (
    Boundary,
    ConsensusName,
    Frame,
    depth_profile,
    measure_model,
    measure_raters,
)
from cm_lightning.variability.page import ShownImage, Variability, variability_page
from cm_lightning.variability.rerun import load_data, load_task, run_test

INDEX = "images.json"

Key = tuple[str, int]  # a case's id and a frame


@dataclass(frozen=True)
class Sampled:
    """A sampled image on disk, of one model and seed.

    Attributes:
        model: Which model.
        seed: Of its training.
        path: Its file.
        frame: Which frame of the case.
        case: The case, for its raters' labels.
        axes: File axes of the data set.
        classes: Value in the label files of every class.
    """

    model: str
    seed: int
    path: Path
    frame: int
    case: Case
    axes: str
    classes: dict[str, int]


def compare_variability(
    runs: Sequence[Path],
    output: Path,
    raters: Path | None = None,
    pattern: str = RATER_PATTERN,
    consensus: ConsensusName = "majority",
    settings: MCDropout = MCDropout(),  # noqa: B008 (frozen)
    frames: int = 3,
    sampled: Path | None = None,
    data_root: Path | None = None,
    accelerator: str = "auto",
    baseline: str | None = None,
    compare: Sequence[str] | None = None,
) -> Path:
    """Compare the variability of trained networks with that of raters.

    Args:
        runs: Folders of experiments, or folders that hold such.
        output: Folder to write to.
        raters: Folder of repeated labels; None to compare networks with their errors alone.
        pattern: How a file's name tells its rater and the repeat.
        consensus: How labels are made one.
        settings: How networks are sampled.
        frames: Frames of every volume.
        sampled: Where samples are kept; in ``output`` by default.
        data_root: The data set, where it has moved since training.
        accelerator: Lightning's name of the device.
        baseline: Model that all others are compared with.
        compare: In its place, the planned comparisons, each "model=baseline".

    Returns:
        The page.

    Raises:
        InputError: None of the runs can be sampled, or the raters' labels not be read.
    """
    experiments = find_experiments(runs)
    names = [(experiment.model, experiment.seed) for experiment in experiments]
    twice = sorted({f"{model} (seed {seed})" for model, seed in names if names.count((model, seed)) > 1})
    if twice:
        raise InputError(f"Several of the runs are the same model with the same seed: {', '.join(twice)}.")
    comparisons = choose_comparisons(list(dict.fromkeys(model for model, _ in names)), baseline, compare)
    images, problems = sample_runs(
        experiments, sampled or output / "samples", settings, frames, raters, pattern, data_root, accelerator
    )
    results = measure(images, raters, pattern, consensus)
    output.mkdir(parents=True, exist_ok=True)
    for name in ("measures", "raters", "profiles", "bins", "convergence"):
        getattr(results, name).to_csv(output / f"{name}.csv", index=False)
    measured = [pair for pair in comparisons if {pair.model, pair.baseline} <= set(results.models)]
    return variability_page(results, measured, settings.samples, problems).write(output)


def sample_runs(
    experiments: Sequence[ExperimentFolder],
    output: Path,
    settings: MCDropout,
    frames: int = 3,
    raters: Path | None = None,
    pattern: str = RATER_PATTERN,
    data_root: Path | None = None,
    accelerator: str = "auto",
) -> tuple[list[Sampled], list[tuple[str, str]]]:
    """Sample the test cases of all folds of experiments; what was sampled before in the same way is kept.

    Args:
        experiments: Folders of experiments.
        output: Where samples are kept.
        settings: How networks are sampled. UNETR is sampled in windows where it was trained on patches.
        frames: Frames of every volume.
        raters: Folder of repeated labels; only cases that have any are sampled, in frames that have. None for all.
        pattern: How a file's name tells its rater and the repeat.
        data_root: The data set, where it has moved.
        accelerator: Lightning's name of the device.

    Returns:
        All sampled images, and the experiments that could not be sampled, each with the reason.

    Raises:
        InputError: There is nothing to sample.
    """
    found: list[Sampled] = []
    problems: list[tuple[str, str]] = []
    for experiment in tqdm(experiments, desc="Sampling", unit="experiment"):
        of_experiment: list[Sampled] = []
        try:
            for fold in experiment.folds():
                data, cases = _tested_cases(fold, data_root)
                chosen = {
                    name: None if raters is None else _rated_frames(case, raters, pattern, data)
                    for name, case in cases.items()
                    if raters is None or (raters / name).is_dir()
                }
                folder = output / fold.name
                paths = _sample_fold(fold, folder, data, chosen, settings, frames, accelerator) if chosen else []
                for path in paths:
                    name, _, number = path.stem.rpartition("_frame")
                    of_experiment.append(
                        Sampled(
                            experiment.model,
                            experiment.seed,
                            path,
                            int(number),
                            cases[name],
                            data.axes.text,
                            data.classes,
                        )
                    )
        except (InputError, MissingInputError) as error:
            problems.append((str(experiment.path), str(error)))
        else:
            found += of_experiment
    if not found:
        what = "a label" if raters is None else f"labels in {raters} (in a folder named like the case)"
        reasons = "".join(f"\n{folder}: {reason}" for folder, reason in problems)
        raise InputError(f"No test case of the runs that can be read has {what}; there is nothing to compare.{reasons}")
    _refuse_unequal_coverage(found)
    return found, problems


def _tested_cases(fold: FoldFolder, data_root: Path | None) -> tuple[UltrasoundDataModule, dict[str, Case]]:
    """The data of a fold and its test cases, which must be those that it was tested with: others were trained on."""
    data = load_data(fold, data_root)
    cases = {case.id: case for case in data.cases_of("test")}
    if fold.test_plan.is_file():
        planned = set(fold.read_test_plan()["test_cases"][data.fold])
        if planned != set(cases):
            raise InputError(
                f"{fold.path} was tested with other cases than the data at {data.root} give (differing: "
                f"{', '.join(sorted(planned ^ set(cases)))}), and may have been trained on these. Expected the data "
                "set of the training."
            )
    return data, cases


def _rated_frames(case: Case, raters: Path, pattern: str, data: UltrasoundDataModule) -> list[int] | None:
    """Frames of a volume in which a rater labelled anything, by the first label; None for an image."""
    file = find_rater_files(raters / case.id, pattern)[0]
    label = data.axes.from_file(read_image(file.path, is_label=True).array)
    return None if label.ndim == 2 else np.flatnonzero((label > 0).any(axis=(0, 1))).tolist()


def _sample_fold(
    fold: FoldFolder,
    folder: Path,
    data: UltrasoundDataModule,
    chosen: dict[str, list[int] | None],
    settings: MCDropout,
    frames: int,
    accelerator: str,
) -> list[Path]:
    """Sample a fold, or find what was sampled with the same weights, settings, images and labels."""
    task = load_task(fold)
    if task.window is not None and not takes_any_grid(task.network):
        settings = replace(settings, inference="windows")
    files = [path for case in data.cases_of("test") if case.id in chosen for path in (case.image, case.label) if path]
    wanted: dict[str, Any] = {
        "checkpoint": file_digest(fold.best_checkpoint),
        "settings": {**asdict(settings), "batch_size": 1},  # changes no result
        "data": {**fold.read_settings()["data"], "root": None, "cache_dir": None},
        "frames": frames,
        "cases": chosen,
        "files": [file_digest(path) for path in files],
    }
    index = folder / INDEX
    if index.is_file():
        stored = json.loads(index.read_text())
        kept = [folder / name for name in stored.pop("sampled")]
        if stored == wanted and all(path.is_file() for path in kept):
            return kept
        index.unlink()  # first: whatever is interrupted now is sampled again
    for stale in folder.glob("*.npz"):
        stale.unlink()
    run_test(task, data, [ImageSampler(folder, settings, frames, chosen)], accelerator)
    sampled = sorted(folder.glob("*.npz"))
    folder.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps({**wanted, "sampled": [path.name for path in sampled]}))
    return sampled


def _refuse_unequal_coverage(images: Sequence[Sampled]) -> None:
    """Refuse models and seeds that do not have the same images: their means would be of other patients."""
    covered: dict[tuple[str, int], set[Key]] = {}
    for one in images:
        covered.setdefault((one.model, one.seed), set()).add((one.case.id, one.frame))
    everything = set().union(*covered.values())
    for (model, seed), keys in covered.items():
        if keys != everything:
            raise InputError(
                f"{model} (seed {seed}) was tested on {len(keys)} of the {len(everything)} images of the runs; "
                "expected the same of all, to compare like with like. Finish its folds, or leave it out."
            )


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
    measures, of_raters, profiles, bins, convergence = [], [], [], [], []
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
            of_raters += [{**about, "measure": name, "value": value} for name, value in values.items()]
        for one, image in zip(versions, sampled, strict=True):
            whose = {"model": one.model, "seed": one.seed, **about}
            same = [other.single for who, other in zip(versions, sampled, strict=True) if who.model == one.model]
            ensemble = np.mean(same, axis=0) if len(same) > 1 else None
            values = measure_model(frame, image, ensemble)
            measures += [{**whose, "measure": name, "value": value} for name, value in values.items()]
            for name, profile in depth_profile(frame, image, deepest).items():
                profiles += [{**whose, "quantity": name, "part": part, "value": v} for part, v in enumerate(profile)]
            counted = zip(*reliability(frame.distribution[:, frame.band], image.mean[:, frame.band]), strict=True)
            bins += [
                {**whose, "bin": number, "count": count, "probability": probability, "share": share}
                for number, (count, probability, share) in enumerate(counted)
            ]
            steps = zip(CONVERGENCE, image.convergence.tolist(), strict=True)
            convergence.append({**whose, **{str(number): value for number, value in steps}})
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
        measures=pd.DataFrame(measures),
        raters=pd.DataFrame(of_raters),
        profiles=pd.DataFrame(profiles),
        bins=pd.DataFrame(bins),
        convergence=pd.DataFrame(convergence),
    )


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
