"""MC-dropout sampling of predictions for the test cases of finished experiments.

Existing samples are reused if weights, settings, images and labels have not changed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cm_lightning.config_files import read_json
from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.cases import Case, file_digest
from cm_lightning.data.classes import ClassValues
from cm_lightning.data.raters import RATER_PATTERN, find_rater_files
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.inference import load_task
from cm_lightning.io import read_image
from cm_lightning.models.networks import supports_any_size
from cm_lightning.runs import ExperimentFolder, FoldFolder
from cm_lightning.uncertainty import MCDropout
from cm_lightning.variability.image_sampler import ImageSampler
from cm_lightning.variability.rerun import load_data, run_test
from cm_lightning.variability.results import Key
from cm_lightning.writing import write_text

INDEX = "images.json"


@dataclass(frozen=True)
class Sampled:
    """A file with the samples of one image by one model and seed.

    Attributes:
        model: Name of the model.
        seed: Training seed.
        fold: Fold of the network.
        path: Path of the file.
        frame: Index of the frame in the volume; 0 for an image.
        case: The case.
        axes: Axes of the image and label files.
        classes: Value, or values, of each class in the label files.
    """

    model: str
    seed: int
    fold: int
    path: Path
    frame: int
    case: Case
    axes: str
    classes: ClassValues


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
    """Sample MC-dropout predictions for the test cases of all folds of experiments; existing samples are reused.

    Args:
        experiments: Folders of experiments.
        output: Folder of the samples.
        settings: Settings of MC dropout. UNETR is sampled in windows if it was trained on patches.
        frames: Number of frames per volume.
        raters: Folder of repeated labels. Only labelled frames of cases with repeated labels are sampled; None for all.
        pattern: Regular expression for the names of label files; see :func:`cm_lightning.data.raters.find_rater_files`.
        data_root: Folder of the data set, if it differs from the one used in training.
        accelerator: Lightning's name of the device.

    Returns:
        All sampled images, and the folder of each experiment that could not be sampled with the reason.

    Raises:
        InputError: There is no case to sample, or the experiments have different test images.
    """
    sampled: list[Sampled] = []
    problems: list[tuple[str, str]] = []
    for experiment in tqdm(experiments, desc="Sampling", unit="experiment"):
        experiment_images: list[Sampled] = []
        try:
            for fold in experiment.folds():
                data, cases = _tested_cases(fold, data_root)
                frames_by_case = {
                    name: None if raters is None else _rated_frames(case, raters, pattern, data)
                    for name, case in cases.items()
                    if raters is None or (raters / name).is_dir()
                }
                folder = output / fold.name
                paths = (
                    _sample_fold(fold, folder, data, frames_by_case, settings, frames, accelerator)
                    if frames_by_case
                    else []
                )
                for path in paths:
                    name, _, number = path.stem.rpartition("_frame")
                    experiment_images.append(
                        Sampled(
                            experiment.model,
                            experiment.seed,
                            data.fold,
                            path,
                            int(number),
                            cases[name],
                            data.axes.text,
                            data.label_classes,
                        )
                    )
        except (InputError, MissingInputError) as error:
            problems.append((str(experiment.path), str(error)))
        else:
            sampled += experiment_images
    if not sampled:
        labels = "a label" if raters is None else f"labels in {raters} (in a folder named like the case)"
        reasons = "".join(f"\n{folder}: {reason}" for folder, reason in problems)
        raise InputError(f"No test case of the readable experiments has {labels}, so nothing can be compared.{reasons}")
    _check_equal_coverage(sampled)
    return sampled, problems


def _tested_cases(fold: FoldFolder, data_root: Path | None) -> tuple[UltrasoundDataModule, dict[str, Case]]:
    """Load the data of a fold, and check that its test cases are those that were recorded when it was tested.

    Any other case may have been used for training.
    """
    data = load_data(fold, data_root)
    cases = {case.id: case for case in data.cases_of("test")}
    if fold.test_plan.is_file():
        planned = set(fold.read_test_plan()["test_cases"][data.fold])
        if planned != set(cases):
            raise InputError(
                f"The test cases of {fold.path} differ from those of the data at {data.root} (differences: "
                f"{', '.join(sorted(planned ^ set(cases)))}), which may have been used in training. Expected the data "
                "set with which the fold was trained."
            )
    return data, cases


def _rated_frames(case: Case, raters: Path, pattern: str, data: UltrasoundDataModule) -> list[int] | None:
    """List the frames of a volume with labelled pixels in the first rater's label; None for an image."""
    file = find_rater_files(raters / case.id, pattern)[0]
    label = data.axes.from_file(read_image(file.path, is_label=True).array)
    return None if label.ndim == 2 else np.flatnonzero((label > 0).any(axis=(0, 1))).tolist()


def _sample_fold(
    fold: FoldFolder,
    folder: Path,
    data: UltrasoundDataModule,
    frames_by_case: dict[str, list[int] | None],
    settings: MCDropout,
    frames: int,
    accelerator: str,
) -> list[Path]:
    """Sample a fold, or return existing samples of the same weights, settings, images and labels."""
    task = load_task(fold.best_checkpoint, f"the checkpoint of {fold.path}").task
    if task.window is not None and not supports_any_size(task.network):
        settings = replace(settings, inference="windows")
    files = [
        path for case in data.cases_of("test") if case.id in frames_by_case for path in (case.image, case.label) if path
    ]
    key: dict[str, Any] = {
        "checkpoint": file_digest(fold.best_checkpoint),
        "settings": {**asdict(settings), "batch_size": 1},  # does not change results
        "data": {**fold.read_settings()["data"], "root": None, "cache_dir": None},
        "frames": frames,
        "cases": frames_by_case,
        "files": [file_digest(path) for path in files],
    }
    index = folder / INDEX
    if index.is_file():
        try:
            stored = read_json(index)
            kept = [folder / name for name in stored.pop("sampled")]
        except (InputError, TypeError, KeyError, AttributeError):  # a damaged index, so that sampling is repeated
            stored, kept = None, []
        if stored == key and all(path.is_file() for path in kept):
            return kept
        index.unlink()  # before sampling, so that interrupted sampling is repeated
    for stale in folder.glob("*.npz"):
        stale.unlink()
    run_test(task, data, [ImageSampler(folder, settings, frames, frames_by_case)], accelerator)
    paths = sorted(folder.glob("*.npz"))
    write_text(index, json.dumps({**key, "sampled": [path.name for path in paths]}))
    return paths


def _check_equal_coverage(images: Sequence[Sampled]) -> None:
    """Check that all models and seeds have the same images, so that their means are comparable."""
    covered: dict[tuple[str, int], set[Key]] = {}
    for image in images:
        covered.setdefault((image.model, image.seed), set()).add((image.case.id, image.frame))
    all_keys = set().union(*covered.values())
    for (model, seed), keys in covered.items():
        if keys != all_keys:
            raise InputError(
                f"{model} (seed {seed}) was tested on {len(keys)} of {len(all_keys)} images; expected the same images "
                "for all models. Finish its folds, or leave it out."
            )
