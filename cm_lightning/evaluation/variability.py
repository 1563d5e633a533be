"""How networks' variability compares with raters', and whether confidence maps predict it: ``variability``."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning_utilities.core.rank_zero import rank_zero_info
from numpy.typing import NDArray
from tqdm import tqdm

from cm_lightning.callbacks import ImageSampler, SampledImage
from cm_lightning.callbacks.image_sampler import CONVERGENCE
from cm_lightning.data.cases import Case, file_digest
from cm_lightning.data.images import Axes
from cm_lightning.data.raters import RATER_PATTERN, read_rater_labels
from cm_lightning.errors import InputError
from cm_lightning.evaluation.pooling import split_seed_name
from cm_lightning.evaluation.report import choose_comparisons
from cm_lightning.evaluation.rerun import CHECKPOINT, load_data, load_task, run_test
from cm_lightning.evaluation.runs import find_experiments
from cm_lightning.evaluation.variability_measures import (
    Boundary,
    Frame,
    depth_profile,
    measure_model,
    measure_raters,
)
from cm_lightning.evaluation.variability_page import Variability, variability_page
from cm_lightning.uncertainty import MCDropout
from cm_lightning.uncertainty.agreement import reliability

INDEX = "images.json"


@dataclass(frozen=True)
class Sampled:
    """A sampled image on disk, of one model and seed.

    Attributes:
        model: Which model.
        seed: Of its training.
        path: Its file.
        case: The case, for its raters' labels.
        axes: File axes of the data set.
        classes: Value in the label files of every class.
    """

    model: str
    seed: int
    path: Path
    case: Case
    axes: str
    classes: dict[str, int]


def variability(words: Sequence[str]) -> None:
    """Compare the variability of trained networks with that of raters.

    Args:
        words: Command line after ``variability``.

    Raises:
        InputError: The runs cannot be sampled, or the raters' labels not be read.
    """
    parser = argparse.ArgumentParser(
        prog="cm_lightning variability",
        description="Sample the test cases of finished runs with MC dropout, and compare where and how much the "
        "samples differ with the labels that several raters, or one several times, gave the same images. Without "
        "raters: what a network's doubt says of its errors. Writes one page, its tables and figures as files, and the "
        "numbers as CSV.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of experiments, or folders that hold such.")
    parser.add_argument("--raters", type=Path, help="Folder with a folder of repeated labels for every case.")
    parser.add_argument(
        "--rater_pattern", default=RATER_PATTERN, help="How a file's name tells its rater and the repeat."
    )
    parser.add_argument("--output", type=Path, default=Path("variability"), help="Folder to write to.")
    parser.add_argument("--sampled", type=Path, help="Where samples are kept; by default in the output's folder.")
    parser.add_argument("--samples", type=int, default=100, help="Passes with dropout.")
    parser.add_argument("--batch_size", type=int, default=1, help="Samples in one pass.")
    parser.add_argument("--inference", choices=["whole", "windows"], default="whole", help="Whole images or windows.")
    parser.add_argument("--frames", type=int, default=3, help="Frames of every volume that are compared.")
    parser.add_argument("--data_root", type=Path, help="The data set, where it is not where the runs were trained.")
    parser.add_argument("--accelerator", default="auto", help="Lightning's name of the device.")
    planned = parser.add_mutually_exclusive_group()
    planned.add_argument("--baseline", help="Model that all others are compared with.")
    planned.add_argument("--compare", nargs="+", metavar="MODEL=BASELINE", help="The planned comparisons.")
    options = parser.parse_args(list(words))
    settings = MCDropout(options.samples, options.batch_size, options.inference)
    images = sample_runs(
        find_experiments(options.runs),
        options.sampled or options.output / "samples",
        settings,
        options.frames,
        options.raters,
        options.data_root,
        options.accelerator,
    )
    found = measure(images, options.raters, options.rater_pattern)
    options.output.mkdir(parents=True, exist_ok=True)
    comparisons = choose_comparisons(list(dict.fromkeys(found.measures["model"])), options.baseline, options.compare)
    for name in ("measures", "raters", "profiles", "bins", "convergence"):
        getattr(found, name).to_csv(options.output / f"{name}.csv", index=False)
    page = variability_page(found, comparisons, settings.samples).write(options.output)
    print(f"Wrote {page}.")


def sample_runs(
    experiments: Sequence[Path],
    output: Path,
    settings: MCDropout,
    frames: int = 3,
    raters: Path | None = None,
    data_root: Path | None = None,
    accelerator: str = "auto",
) -> list[Sampled]:
    """Sample the test cases of all folds of experiments; folds that were sampled before with these settings are kept.

    Args:
        experiments: Folders of experiments.
        output: Where samples are kept.
        settings: How networks are sampled.
        frames: Frames of every volume.
        raters: Folder of repeated labels; only cases that have any are sampled. None for all cases.
        data_root: The data set, where it has moved.
        accelerator: Lightning's name of the device.

    Returns:
        All sampled images.

    Raises:
        InputError: There is nothing to sample.
    """
    found: list[Sampled] = []
    folds = [fold for experiment in experiments for fold in sorted(experiment.glob("fold*/"))]
    if not folds:
        raise InputError(f"No folds in {', '.join(str(path) for path in experiments)}; expected finished experiments.")
    for fold in tqdm(folds, desc="Sampling", unit="fold"):
        folder = output / fold.parent.name / fold.name
        data, task = load_data(fold, data_root), load_task(fold)
        cases = {case.id: case for case in data.cases_of("test")}
        chosen = [name for name in cases if raters is None or (raters / name).is_dir()]
        wanted: dict[str, Any] = {
            "checkpoint": file_digest(fold / CHECKPOINT),
            "settings": {**asdict(settings), "batch_size": 1},  # changes no result
            "frames": frames,
            "cases": chosen,
        }
        index = folder / INDEX
        if not (index.is_file() and json.loads(index.read_text()) == wanted):
            for stale in folder.glob("*.npz"):
                stale.unlink()
            run_test(task, data, [ImageSampler(folder, settings, frames, chosen)], accelerator)
            folder.mkdir(parents=True, exist_ok=True)
            index.write_text(json.dumps(wanted))
        name, seed = split_seed_name(fold.parent.name)
        for path in sorted(folder.glob("*.npz")):
            case = cases[path.stem.rpartition("_frame")[0]]
            found.append(Sampled(name, seed, path, case, data.axes.text, data.classes))
    if not found:
        where = "has no label" if raters is None else f"has labels in {raters} (a folder named like the case)"
        raise InputError(f"None of the runs' test cases {where}; there is nothing to compare.")
    return found


def measure(images: Sequence[Sampled], raters: Path | None, pattern: str = RATER_PATTERN) -> Variability:
    """Measure all sampled images.

    Args:
        images: Those of all models and seeds.
        raters: Folder of repeated labels, or None.
        pattern: How a file's name tells its rater and the repeat.

    Returns:
        Long tables, and the images to show.
    """
    by_image: dict[tuple[str, int], list[tuple[Sampled, SampledImage]]] = {}
    for one in images:
        number = int(one.path.stem.rpartition("_frame")[2])
        by_image.setdefault((one.case.id, number), []).append((one, SampledImage.load(one.path)))
    classes = images[0].classes
    frames = {key: _frame(key[1], versions, raters, pattern) for key, versions in by_image.items()}
    measures, of_raters, profiles, bins, convergence = [], [], [], [], []
    boundaries: dict[tuple[str, int], Boundary] = {}
    for key, versions in tqdm(by_image.items(), desc="Comparing", unit="image"):
        frame = frames[key]
        about = {"patient": frame.image.patient, "case": key[0], "frame": key[1]}
        if frame.repeated:
            values, boundaries[key] = measure_raters(frame, _other_map(key, frames))
            of_raters += [{**about, "measure": name, "value": value} for name, value in values.items()]
        for one, sampled in versions:
            whose = {"model": one.model, "seed": one.seed, **about}
            same = [other.single for who, other in versions if who.model == one.model]
            ensemble = np.mean(same, axis=0) if len(same) > 1 else None
            values = measure_model(frame, sampled, ensemble)
            measures += [{**whose, "measure": name, "value": value} for name, value in values.items()]
            for name, profile in depth_profile(frame, sampled).items():
                profiles += [{**whose, "quantity": name, "part": part, "value": v} for part, v in enumerate(profile)]
            counted = zip(*reliability(frame.distribution[:, frame.band], sampled.mean[:, frame.band]), strict=True)
            bins += [
                {**whose, "bin": number, "count": count, "probability": probability, "share": share}
                for number, (count, probability, share) in enumerate(counted)
            ]
            convergence.append({**whose, **_convergence(sampled)})
    return Variability(
        class_names=list(classes),
        frames=frames,
        sampled={key: {one.model: image for one, image in reversed(versions)} for key, versions in by_image.items()},
        boundaries=boundaries,
        measures=pd.DataFrame(measures),
        raters=pd.DataFrame(of_raters),
        profiles=pd.DataFrame(profiles),
        bins=pd.DataFrame(bins),
        convergence=pd.DataFrame(convergence),
    )


def _frame(number: int, versions: Sequence[tuple[Sampled, SampledImage]], raters: Path | None, pattern: str) -> Frame:
    one, image = versions[0]
    n_classes = len(one.classes) + 1
    if raters is None:
        return Frame(image, image.label[None], ("label",), n_classes)
    volume = len(one.axes.split()) == 3
    read = read_rater_labels(
        raters, one.case, Axes(one.axes), one.classes, pattern, frames=[number] if volume else None
    )
    return Frame(image, read.labels[..., 0] if volume else read.labels, read.raters, n_classes)


def _other_map(key: tuple[str, int], frames: dict[tuple[str, int], Frame]) -> NDArray[np.float32]:
    """Confidence map of an image of another patient, in this image's shape; NaN where there is none."""
    own = frames[key].image
    others = [frame.image for frame in frames.values() if frame.image.patient != own.patient]
    if not others:
        rank_zero_info("Images of one patient alone: there is no other patient's map to compare with.")
        return np.full_like(own.confidence, np.nan)
    drawn = others[int(np.random.default_rng([key[1], *key[0].encode()]).integers(len(others)))].confidence
    places = [(np.arange(n) * m) // n for n, m in zip(own.confidence.shape, drawn.shape, strict=True)]
    return drawn[np.ix_(*places)]


def _convergence(sampled: SampledImage) -> dict[str, float]:
    return {str(number): value for number, value in zip(CONVERGENCE, sampled.convergence.tolist(), strict=True)}
