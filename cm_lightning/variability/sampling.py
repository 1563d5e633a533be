"""Sampling the test cases of finished experiments, and finding what was sampled before."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.cases import Case, file_digest
from cm_lightning.data.raters import RATER_PATTERN, find_rater_files
from cm_lightning.errors import InputError, MissingInputError
from cm_lightning.io import read_image
from cm_lightning.models.networks import takes_any_grid
from cm_lightning.runs import ExperimentFolder, FoldFolder
from cm_lightning.uncertainty import MCDropout
from cm_lightning.variability.image_sampler import ImageSampler
from cm_lightning.variability.rerun import load_data, load_task, run_test
from cm_lightning.variability.results import Key

INDEX = "images.json"


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
    _check_equal_coverage(found)
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


def _check_equal_coverage(images: Sequence[Sampled]) -> None:
    """Check that all models and seeds have the same images: else their means would be of other patients."""
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
