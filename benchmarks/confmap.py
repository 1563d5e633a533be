"""Time and memory of ``confmap`` beside those of the solver.

    python benchmarks/confmap.py                # 500 pictures, and a volume of the size of a lower leg
    python benchmarks/confmap.py --frames 50    # a short run

A folder of pictures of 512 x 476 is mapped by ``confmap``, and the same frames by the solver alone, in one process and
in turns. A volume of 564 x 632 pixels per frame is mapped in a process of its own, whose peak memory is compared with
the size of the volume. The frames are simulated speckle. The results are written as a Markdown table.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from solver import machine_name

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.confmap import MapSettings, map_files
from cm_lightning.confmap.command import FRAMES_AT_ONCE

MAP_VOLUME = """
import sys
from pathlib import Path
from cm_lightning.confmap import MapSettings, map_files

def kilobytes():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before = kilobytes()
failures = map_files([Path(sys.argv[1])], Path(sys.argv[2]), MapSettings(domain="whole"))
print(before, kilobytes())
sys.exit(bool(failures))
"""


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500, help="number of pictures")
    parser.add_argument("--volume", type=int, default=1443, help="number of frames of the volume; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machine", default=machine_name())
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = pictures(Path(folder), arguments.frames, arguments.rounds)
        if arguments.volume:
            rows += volume(Path(folder), arguments.volume)
    lines = [
        f"Machine: {arguments.machine}. Medians. Command: `python benchmarks/confmap.py`.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {what} | {value} |" for what, value in rows),
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "confmap.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def pictures(folder: Path, count: int, rounds: int) -> list[tuple[str, str]]:
    """Map a folder of pictures with the command and with the solver alone."""
    frames = speckle(count, 512, 476)
    source = folder / "pictures"
    source.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(source / f"{number:04d}.png")
    solver = ConfidenceMapSolver()
    solver(frames[:FRAMES_AT_ONCE])  # compiles the solver if necessary
    rows = []
    for domain in ("whole", "auto"):
        alone, command = [], []
        for number in range(rounds):
            start = time.perf_counter()
            for first in range(0, count, FRAMES_AT_ONCE):
                solver(frames[first : first + FRAMES_AT_ONCE])
            alone.append(time.perf_counter() - start)
            start = time.perf_counter()
            map_files([source], folder / f"maps_{domain}_{number}", MapSettings(domain=domain))  # type: ignore[arg-type]
            command.append(time.perf_counter() - start)
        seconds = statistics.median(command)
        ratio = seconds / statistics.median(alone)
        rows.append(
            (f"{count} pictures of 512 x 476, domain {domain}", f"{seconds:.1f} s, {ratio:.2f} times the solver")
        )
    return rows


def volume(folder: Path, count: int) -> list[tuple[str, str]]:
    """Map a volume in a process of its own, and return its time and peak memory."""
    frames = np.resize(speckle(8, 564, 632), (count, 564, 632))
    array = np.transpose(frames, (2, 1, 0))  # lateral, depth, elevation
    path = folder / "volume.nii"
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", MAP_VOLUME, str(path), str(folder / "volume")],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    before, peak = (1024 * int(word) for word in result.stdout.split()[-2:])
    what = f"volume of {count} frames of 564 x 632, uint8, map float32"
    return [
        (what, f"{seconds:.0f} s, {1000 * seconds / count:.0f} ms per frame"),
        (
            "its memory",
            f"{(peak - before) / array.nbytes:.2f} times the array of {array.nbytes / 1e6:.0f} MB, in addition to "
            f"{before / 1e6:.0f} MB of the program",
        ),
    ]


def speckle(count: int, depth: int, lateral: int) -> NDArray[np.uint8]:
    """Return frames of speckle that becomes darker with depth, ``(count, depth, lateral)``."""
    rng = np.random.default_rng(0)
    attenuation = np.exp(-np.arange(depth) / depth)[:, None]
    return (
        np.stack([rng.rayleigh(60.0, (depth, lateral)) * attenuation for _ in range(count)]).clip(0, 255).astype("u1")
    )


if __name__ == "__main__":
    main()
