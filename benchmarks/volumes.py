"""Memory and time of ``predict`` and ``test`` on volumes of the size of the study.

Each command runs in a process of its own on a simulated volume of 564 x 632 pixels, with four classes including the
background and a small network with random weights, so that the figures are those of reading, resampling, measuring
and writing. ``resized`` volumes are resized to one grid, ``windows`` are predicted with sliding windows at the
resolution of the file.

    python benchmarks/volumes.py --frames 200 --output benchmarks/results
    python benchmarks/volumes.py --frames 1443 --modes resized --output benchmarks/results
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from pytorch_lightning import Trainer

from cm_lightning.data.frames import to_volume
from cm_lightning.data.resampling import resample
from cm_lightning.tasks import SegmentationTask

DEPTH, LATERAL = 564, 632
CLASSES = {"soleus": 1, "gastrocnemius_medialis": 2, "gastrocnemius_lateralis": 3}
GRID, PATCH = [96, 96, 96], [96, 96, 96]
NETWORK = {"channels": [8, 16], "strides": [2], "num_res_units": 0}


def main() -> None:
    """Measure the commands, and print or publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200, help="Number of frames of the volume.")
    parser.add_argument("--modes", nargs="+", choices=["resized", "windows"], default=["resized", "windows"])
    parser.add_argument("--stages", nargs="+", choices=["predict", "test"], default=["predict", "test"])
    parser.add_argument("--folder", type=Path, help="Folder for the volume, the runs and the predictions.")
    parser.add_argument("--output", type=Path, help="Folder of the table volumes_<frames>.md.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        write_data_set(folder / "data", arguments.frames)
        rows = []
        for mode in arguments.modes:
            checkpoint = write_checkpoint(folder / f"{mode}.ckpt", mode)
            for stage in arguments.stages:
                measured = measure(folder, stage, mode, checkpoint, arguments.frames)
                rows.append({"stage": stage, "mode": mode, **measured})
                print(rows[-1], flush=True)
        text = table(rows, arguments.frames) + reading_speed(folder / "cache")
    print(text)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / f"volumes_{arguments.frames}.md").write_text(text)


def write_data_set(root: Path, frames: int) -> None:
    """Write one volume with its label as three cases in the raw layout of nnU-Net."""
    if (root / "imagesTr").is_dir():
        return
    rng = np.random.default_rng(0)
    lateral, depth = np.meshgrid(np.linspace(-1, 1, LATERAL), np.linspace(0, 1, DEPTH), indexing="ij")
    image = np.empty((LATERAL, DEPTH, frames), np.uint8, order="F")
    label = np.zeros_like(image)
    texture = rng.rayleigh(40, (LATERAL, DEPTH)) * np.exp(-1.2 * depth)
    for frame in range(frames):
        shift = 0.2 * np.sin(4 * np.pi * frame / frames)
        image[:, :, frame] = np.clip(np.roll(texture, 7 * frame, axis=0) + 20 * rng.random(texture.shape), 0, 255)
        for value, (column, row) in {1: (0.0, 0.65), 2: (-0.5, 0.25), 3: (0.5, 0.25)}.items():
            inside = ((lateral - column - shift) / 0.4) ** 2 + ((depth - row) / 0.2) ** 2 < 1
            label[:, :, frame][inside] = value
    affine = np.diag([0.08, 0.08, 0.2, 1.0])
    for name, array in (("imagesTr", image), ("labelsTr", label)):
        (root / name).mkdir(parents=True)
        suffix = "_0000" if name == "imagesTr" else ""
        first = root / name / f"p0{suffix}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(array, affine), first)
        for number in (1, 2):
            os.link(first, root / name / f"p{number}{suffix}.nii.gz")


def write_checkpoint(path: Path, mode: str) -> Path:
    """Write the checkpoint of an untrained network."""
    sizes = {"spatial_size": GRID} if mode == "resized" else {"patch_size": PATCH}
    torch.manual_seed(0)
    task = SegmentationTask(CLASSES, 3, network_options=NETWORK, **sizes)
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path, weights_only=True)
    return path


def measure(folder: Path, stage: str, mode: str, checkpoint: Path, frames: int) -> dict[str, float]:
    """Run a stage in a process of its own, once to compute the confidence maps and once with the stored maps."""
    size = {"resized": {"spatial_size": GRID}, "windows": {"patch_size": PATCH}}[mode]
    options = {
        "--data.root": str(folder / "data"),
        "--data.layout": "nnunet",
        "--data.classes": json.dumps(CLASSES),
        "--data.patient_pattern": "(p.)",
        "--data.cache_dir": str(folder / "cache"),
        "--output_dir": str(folder / "outputs"),
        "--experiment": mode,
        "--ckpt_path": str(checkpoint),
        "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false",
        "--wandb.mode": "disabled",
        **{f"--data.{name}": json.dumps(value) for name, value in size.items()},
    }
    if stage == "predict":
        options["--data.predict_path"] = str(folder / "data" / "imagesTr" / "p0_0000.nii.gz")
    command = [sys.executable, "-m", "cm_lightning", stage, *(f"{name}={value}" for name, value in options.items())]
    results = {}
    for name in ("first", "again"):
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} ended with status {status}.")
        results |= {f"{name}_s": time.perf_counter() - start, f"{name}_gb": usage.ru_maxrss / 2**20}
        if name == "first" and frames > 500:  # the extrapolation is checked once
            break
    return results


def table(rows: list[dict[str, float | str]], frames: int) -> str:
    """Return the table as Markdown."""
    lines = [
        f"# Volumes of {DEPTH} x {LATERAL} x {frames}",
        "",
        f"`python benchmarks/volumes.py --frames {frames}` on {os.cpu_count()} CPU cores ({platform.machine()}), torch "
        f"{torch.__version__}. Peak memory of the whole process in GiB, and its time in seconds, when the confidence "
        "maps are computed and when they are read from disk.",
        "",
        "| command | volumes are | memory, maps computed | time | memory, maps stored | time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        again = [f"{row['again_gb']:.1f}", f"{row['again_s']:.0f}"] if "again_gb" in row else ["", ""]
        values = [row["stage"], row["mode"], f"{row['first_gb']:.1f}", f"{row['first_s']:.0f}", *again]
        lines.append(f"| {' | '.join(map(str, values))} |")
    return "\n".join(lines) + "\n"


def reading_speed(cache: Path) -> str:
    """Return a sentence on the speed at which stored maps are read and resized, as in every epoch without a cache."""
    file = next(cache.rglob("*.npy"))
    speeds = []
    for _ in range(5):
        start = time.perf_counter()
        resample(to_volume(np.load(file, mmap_mode="r")), tuple(GRID), "linear")
        speeds.append(file.stat().st_size / 1e6 / (time.perf_counter() - start))
    return (
        f"\nStored confidence maps are read and resized to {' x '.join(map(str, GRID))} at {np.median(speeds):.0f} "
        "MB/s (file in the memory of the operating system, median of 5). Training reads them once, and then keeps the "
        "resized cases in memory (`data.cache_rate`).\n"
    )


if __name__ == "__main__":
    main()
