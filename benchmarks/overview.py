"""Picture of the README: a screen, its insonified region, confidence map, prediction and entropy.

    python benchmarks/overview.py [--folder outputs/overview] [--output benchmarks/results/overview.png] [--epochs 60]

Frames of simulated necks, which a convex probe records, are placed on screens with text, a grey bar and a ruler. A 2D
U-Net is trained on them exactly as on own data: ``inspect --write_config``, then ``fit``. The picture shows a frame of
a test patient; of the entropy, only the insonified region.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cm_lightning.confidence import ConfidenceMapSolver, find_insonified
from cm_lightning.data import Phantom
from cm_lightning.drawing import CONFIDENCE, Panel, Scale, draw_panels
from cm_lightning.drawing.figures import save_figure
from cm_lightning.inference import Predictor
from cm_lightning.main import main as cm_lightning

PATIENTS = 12
FRAMES = 4
# Rows and columns of the screens, and the position of the frame on them.
SCREEN = (440, 560)
CORNER = (50, 90)
REGION_PARTS = ("region", "source", "sink")


def draw_screen(frame: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Place a frame on a screen with text, a grey bar and a ruler."""
    rows, columns = frame.shape
    top, left = CORNER
    picture = Image.new("L", SCREEN[::-1], 0)
    picture.paste(Image.fromarray(frame), (left, top))
    pen = ImageDraw.Draw(picture)
    pen.text((10, 8), f"PHANTOM  {name}", fill=200)
    pen.text((10, 24), "C5-2   4.0 MHz   MI 0.9", fill=150)
    for row in range(150):
        pen.line([(20, 120 + row), (32, 120 + row)], fill=255 - row * 255 // 149)
    for tick in range(0, rows, 40):
        pen.line([(left + columns + 20, top + tick), (left + columns + 28, top + tick)], fill=180)
    return np.asarray(picture)


def write_screens(root: Path) -> None:
    """Write screens and labels in the layout ``folder``."""
    phantom = Phantom("thyroid", PATIENTS, size=(360, 380, FRAMES), spacing=(0.15, 0.15, 8.0), probe="convex")
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for patient in range(PATIENTS):
        volume = phantom.simulate(patient)
        for frame in range(FRAMES):
            name = f"patient{patient:02d}_frame{frame}"
            label = np.zeros(SCREEN, np.uint8)
            top, left = CORNER
            label[top : top + phantom.size[0], left : left + phantom.size[1]] = volume.label[:, :, frame]
            Image.fromarray(draw_screen(volume.image[:, :, frame], name)).save(root / "images" / f"{name}.png")
            Image.fromarray(label).save(root / "masks" / f"{name}.png")


def train(folder: Path, epochs: int) -> Path:
    """Train a network as on own data, and return the folder of its fold."""
    config = folder / "overview.yaml"
    cm_lightning(
        [
            "inspect",
            str(folder / "screens"),
            f"--write_config={config}",
            f"--output={folder / 'inspection'}",
            "--overwrite=true",
        ]
    )
    names = Phantom("thyroid").classes
    text = config.read_text()
    for name, value in names.items():
        text = re.sub(rf"class_{value}: {value}\b", f"{name}: {value}", text)
    config.write_text(text)
    cm_lightning(
        [
            "fit",
            f"--config={config}",
            "--experiment=network",
            f"--output_dir={folder}",
            f"--data.cache_dir={folder / 'cache'}",
            "--overwrite=true",
            f"--trainer.max_epochs={epochs}",
            "--trainer.enable_progress_bar=false",
            "--wandb.mode=disabled",
        ]
    )
    return folder / "network" / "fold0"


def test_case(folder: Path) -> str:
    """Return the second frame of the first patient in the test set of the fold."""
    split = json.loads(next((folder / "cache" / "splits").glob("*.json")).read_text())
    return f"{sorted(split['folds'][0]['test'])[0]}_frame1"


def draw(folder: Path, fold: Path, case: str, output: Path) -> None:
    """Draw screen, region, map, label, prediction and entropy of a frame."""
    frame, label = (np.asarray(Image.open(folder / "screens" / kind / f"{case}.png")) for kind in ("images", "masks"))
    found = find_insonified(frame, "auto")
    confidence = ConfidenceMapSolver()(frame, found.domain, found.source, found.sink, found.up)
    result = Predictor.from_checkpoint(fold / "checkpoints" / "best.ckpt")(frame)
    region = found.domain.astype(int)
    for index, line in ((2, found.source), (3, found.sink)):
        wide = line | np.roll(line, 1, axis=0) | np.roll(line, -1, axis=0)
        region[wide & found.domain] = index
    offset = len(REGION_PARTS)
    label, prediction = (np.where(values > 0, values + offset, 0) for values in (label, result.segmentation))
    grey = frame / 255
    entropy = np.where(found.domain, result.entropy, 0)
    size, unit = (1.0, 1.0), "px"
    panels = [
        Panel("screen", grey, size, unit),
        Panel("insonified region", grey, size, unit, region),
        Panel("confidence map", confidence, size, unit, scale=CONFIDENCE),
        Panel("label", grey, size, unit, label),
        Panel("prediction", grey, size, unit, prediction),
        Panel("entropy of the prediction", entropy, size, unit, scale=Scale("nats", 1.0, "magma")),
    ]
    save_figure(draw_panels([panels[:3], panels[3:]], [*REGION_PARTS, *result.classes]), output)


def main() -> None:
    """Write the screens, train the network, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/overview"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/overview.png"))
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    if not (options.folder / "screens").is_dir():
        write_screens(options.folder / "screens")
    fold = options.folder / "network" / "fold0"
    if not (fold / "finished.json").is_file():
        fold = train(options.folder, options.epochs)
    draw(options.folder, fold, test_case(options.folder), options.output)
    print(f"Wrote {options.output}.")


if __name__ == "__main__":
    main()
