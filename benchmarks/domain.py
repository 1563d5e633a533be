"""Accuracy, robustness and speed of the search for the insonified region, on screens with known geometry.

    python benchmarks/domain.py SCREENS/truth.json [--changes] [--rows]

``truth.json`` contains a list ``frames``. Each frame has the keys ``file`` (relative to the folder of ``truth.json``,
or to the parent of this folder if it contains a folder), ``geometry`` (in the format of the geometry files, see README)
and ``up`` (the side of the probe). For every frame, the overlap (intersection over union) of the detected and the true
region is computed, and the distance of the source from the face of the probe: the larger of the two median distances,
in percent of the height of the region. ``--changes`` also changes the frames: other background levels, added
text, crops, other sizes, a vertical flip, and JPEG compression.
"""

import argparse
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from cm_lightning.confidence import Insonified, find_insonified
from cm_lightning.confidence.domain import DOUBTFUL_SCORE, geometry_from_dict

Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]
# Function that changes a frame and the masks of its region and of the face of the probe.
Perturbation = Callable[[np.random.Generator, Grey, Mask, Mask], tuple[Grey, Mask, Mask]]

WORDS = ("Gain 62%", "MI 0.9", "DR 60", "Dist 3.42 cm", "LIVER", "12.4 MHz", "FR 32Hz", "ID 1234", "Depth 15cm", "R")
FACE_LIMIT = 3.0


@dataclass(frozen=True)
class Frame:
    """Screen with known geometry.

    Attributes:
        name: File of the screen.
        kind: Family of the geometry.
        image: Grey levels, ``(depth, lateral)``.
        region: Insonified pixels, ``(depth, lateral)``.
        face: Pixels at the face of the probe, ``(depth, lateral)``.
    """

    name: str
    kind: str
    image: Grey
    region: Mask
    face: Mask


@dataclass(frozen=True)
class Result:
    """Comparison of the detected region with the true one.

    Attributes:
        overlap: Intersection over union.
        face: Distance of the source from the face of the probe in percent of the height of the region.
        score: Estimated probability that the region is correct.
        seconds: Time in s per megapixel.
    """

    overlap: float
    face: float
    score: float
    seconds: float


def read_frames(file: Path) -> list[Frame]:
    """Read screens. Files with a folder in their name are relative to the parent folder."""
    frames = []
    for entry in json.loads(file.read_text())["frames"]:
        folder = file.parent.parent if "/" in entry["file"] else file.parent
        image = np.asarray(Image.open(folder / entry["file"]))
        if image.ndim == 3:
            image = np.round(image[..., :3] @ [0.299, 0.587, 0.114]).astype(np.uint8)
        masks = geometry_from_dict({"up": entry["up"], **entry["geometry"]}).masks(image.shape)
        frames.append(Frame(entry["file"], entry["geometry"]["kind"], image, masks.domain, masks.source))
    return frames


def compare(detected: Insonified, region: Mask, face: Mask, seconds: float) -> Result:
    """Compare the detected region with the true one."""
    domain, source = np.asarray(detected.domain), np.asarray(detected.source)
    rows = np.flatnonzero(region.any(axis=1))
    distance = np.inf
    if source.any() and face.any():
        to_face = np.median(ndimage.distance_transform_edt(~face)[source])
        to_source = np.median(ndimage.distance_transform_edt(~source)[face])
        distance = 100 * max(to_face, to_source) / (rows[-1] + 1 - rows[0])
    overlap = (domain & region).sum() / max(1, (domain | region).sum())
    return Result(float(overlap), float(distance), detected.score, seconds * 1e6 / region.size)


def with_background(level: int) -> Perturbation:
    """Return a function that gives the pixels with the most frequent level outside the region another level."""

    def perturb(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
        if region.all():
            return image, region, face
        background = np.bincount(image[~region], minlength=256).argmax()
        return np.where((image == background) & ~region, np.uint8(level), image), region, face

    return perturb


def with_text(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
    """Draw text outside the region."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    rows, columns = image.shape
    for _ in range(14):
        font = ImageFont.load_default(int(rng.integers(max(8, rows // 60), max(12, rows // 18))))
        word = str(rng.choice(WORDS))
        _, _, width, height = (int(side) for side in draw.textbbox((0, 0), word, font=font))
        for _ in range(20):
            column, row = rng.integers(0, max(1, columns - width)), rng.integers(0, max(1, rows - height))
            if not region[row : row + height + 2, column : column + width + 2].any():
                draw.text((int(column), int(row)), word, fill=int(rng.integers(120, 256)), font=font)
                break
    return np.asarray(picture), region, face


def cropped(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
    """Crop the surroundings of the region at random."""
    slices = []
    for axis in (0, 1):
        inside = np.flatnonzero(region.any(axis=1 - axis))
        slices.append(slice(rng.integers(0, inside[0] + 1), rng.integers(inside[-1] + 1, image.shape[axis] + 1)))
    rows, columns = slices
    return image[rows, columns].copy(), region[rows, columns], face[rows, columns]


def scaled(factor: float) -> Perturbation:
    """Return a function that resizes a frame and its masks by a factor."""

    def perturb(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
        size = (int(image.shape[1] * factor), int(image.shape[0] * factor))
        method = Image.Resampling.BILINEAR if factor > 1 else Image.Resampling.BOX
        nearest = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in (region, face)]
        if not nearest[1].any():
            nearest[1] = nearest[0] & ~ndimage.binary_erosion(nearest[0])
        return np.asarray(Image.fromarray(image).resize(size, method)), nearest[0], nearest[1]

    return perturb


def flipped_vertically(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
    """Flip the frame vertically."""
    return image[::-1].copy(), region[::-1].copy(), face[::-1].copy()


def compressed(rng: np.random.Generator, image: Grey, region: Mask, face: Mask) -> tuple[Grey, Mask, Mask]:
    """Compress the frame with JPEG at quality 40."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer)), region, face


PERTURBATIONS: dict[str, Perturbation] = {
    "background 20": with_background(20),
    "background 128": with_background(128),
    "background 235": with_background(235),
    "text": with_text,
    "crop": cropped,
    "0.5 x size": scaled(0.5),
    "1.5 x size": scaled(1.5),
    "2 x size": scaled(2),
    "vertical flip": flipped_vertically,
    "JPEG 40": compressed,
}


def measure(frames: list[Frame], perturb: Perturbation | None) -> list[Result]:
    """Detect the regions of all frames, which are changed first if a perturbation is given."""
    rng = np.random.default_rng(5)
    results = []
    for frame in frames:
        image, region, face = frame.image, frame.region, frame.face
        if perturb is not None:
            image, region, face = perturb(rng, image, region, face)
        start = perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            detected = find_insonified(image, "auto")
        results.append(compare(detected, region, face, perf_counter() - start))
    return results


def summary(results: list[Result]) -> list[str]:
    """Return the cells of a row of the table."""
    overlap = np.array([result.overlap for result in results])
    has_warning = np.array([result.score < DOUBTFUL_SCORE for result in results])
    face_correct = sum(result.face <= FACE_LIMIT for result in results)
    is_wrong, is_accurate = overlap < 0.8, overlap >= 0.95
    return [
        f"{np.median(overlap):.3f}",
        f"{overlap.mean():.3f}",
        f"{np.count_nonzero(overlap >= 0.9)}",
        f"{np.count_nonzero(is_accurate)}",
        f"{face_correct}",
        f"{np.count_nonzero(has_warning & is_wrong)} of {np.count_nonzero(is_wrong)}",
        f"{np.count_nonzero(has_warning & is_accurate)} of {np.count_nonzero(is_accurate)}",
        f"{np.median([result.seconds for result in results]):.2f}",
        f"{max(result.seconds for result in results):.2f}",
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--changes", action="store_true")
    parser.add_argument("--rows", action="store_true", help="also print a row for every frame")
    arguments = parser.parse_args()
    console = Console(width=150)
    frames = read_frames(arguments.truth)
    find_insonified(frames[0].image, "auto")  # loads the network
    unchanged = measure(frames, None)
    if arguments.rows:
        table = Table("frame", "kind", "overlap", "face [%]", "score", "s per megapixel")
        for frame, result in zip(frames, unchanged, strict=True):
            values = (result.overlap, result.face, result.score, result.seconds)
            table.add_row(frame.name, frame.kind, *(f"{value:.2f}" for value in values))
        console.print(table)
    table = Table("frames", "n", "median overlap", "mean", ">= 0.9", ">= 0.95", "face <= 3 %", "warned < 0.8",
                  "warned >= 0.95", "s/MP", "max")  # fmt: skip
    table.add_row("all", str(len(frames)), *summary(unchanged))
    for kind in sorted({frame.kind for frame in frames}):
        part = [result for frame, result in zip(frames, unchanged, strict=True) if frame.kind == kind]
        table.add_row(kind, str(len(part)), *summary(part))
    if arguments.changes:
        for name, perturb in PERTURBATIONS.items():
            table.add_row(name, str(len(frames)), *summary(measure(frames, perturb)))
    console.print(table)


if __name__ == "__main__":
    main()
