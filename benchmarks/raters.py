"""Confidence and the variability of simulated raters, without any network.

    python benchmarks/raters.py benchmarks/results/raters

Muscle phantoms of 16 participants with three frames each, and 100 labels per frame by a simulated rater. The SD of the
rater's boundaries is 0.8 mm plus 0.4 mm per cm of depth (``depth``), or plus 2 mm where confidence is 0
(``confidence``). The tables are those of the subcommand ``variability``, which also samples networks.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data import Phantom
from cm_lightning.data.confidence_maps import frame_maps
from cm_lightning.data.phantom import RaterModel
from cm_lightning.data.reading import image_geometry
from cm_lightning.evaluation.page import write_tables
from cm_lightning.variability.frame import Frame
from cm_lightning.variability.image_sampler import SampledImage, choose_frames
from cm_lightning.variability.rater_measures import measure_raters
from cm_lightning.variability.results import Variability
from cm_lightning.variability.tables import correlation_table, explained_table, rater_table

PHANTOM = Phantom("muscle", patients=16, size=(48, 48, 32), spacing=(1.2, 1.2, 3.6))
RATERS = {
    "depth": RaterModel(repeats=100, sd=0.8, depth=0.4),
    "confidence": RaterModel(repeats=100, sd=0.8, confidence=2.0),
}
FRAMES = 3
UNUSED = np.zeros(1, np.float32)


def sampled_frame(patient: str, frame: int, images: dict[str, np.ndarray]) -> SampledImage:
    """Return a frame without samples of a network."""
    return SampledImage(
        case=patient,
        patient=patient,
        frame=frame,
        unit="mm",
        spacing=PHANTOM.spacing[:2],
        image=images["image"][..., frame] / np.float32(255),
        domain=np.ones(PHANTOM.size[:2], dtype=bool),
        label=images["label"][..., frame],
        confidence=images["confidence"][..., frame],
        samples=images["label"][None, ..., frame],
        mean=UNUSED,
        expected_entropy=UNUSED,
        single=UNUSED,
        augmented=UNUSED,
        convergence=UNUSED,
    )


def simulate() -> dict[str, dict[str, np.ndarray]]:
    """Simulate the image, label and confidence map of every patient."""
    volumes, values = {}, sorted(PHANTOM.classes.values())
    for number in range(PHANTOM.patients):
        volume = PHANTOM.simulate(number)
        geometry = image_geometry(volume.image, "whole", PHANTOM.spacing)
        maps = np.concatenate(list(frame_maps(ConfidenceMapSolver(), volume.image, geometry)))
        label = np.searchsorted(values, volume.label, side="right").astype(np.uint8)
        label[volume.label == 0] = 0
        confidence = np.moveaxis(maps, 0, -1).astype(np.float32)
        volumes[f"phantom{number:02d}"] = {"image": volume.image, "label": label, "confidence": confidence}
    return volumes


def measure(volumes: dict[str, dict[str, np.ndarray]], raters: RaterModel) -> Variability:
    """Draw the labels of all frames and measure them."""
    generator, rows, boundaries, keys = np.random.default_rng(0), [], {}, []
    for patient, images in volumes.items():
        drawn = raters.draw(images["label"], PHANTOM.spacing, f"{patient}_x1", images["confidence"])
        labels = np.stack([simulated.label for simulated in drawn])
        donor = volumes[generator.choice([name for name in volumes if name != patient])]
        donor_frames = choose_frames(torch.from_numpy(donor["label"]), FRAMES)
        frames = choose_frames(torch.from_numpy(images["label"]), FRAMES)
        for frame, donor_frame in zip(frames, donor_frames, strict=True):
            names = ("rater1",) * len(labels)
            classes = len(PHANTOM.classes) + 1
            image = sampled_frame(patient, frame, images)
            image_frame = Frame(image, np.ascontiguousarray(labels[..., frame]), names, classes)
            values, boundaries[patient, frame] = measure_raters(image_frame, donor["confidence"][..., donor_frame])
            key = {"patient": patient, "case": patient, "frame": frame}
            keys.append({"model": "", "seed": 0, "fold": 0, **key, "measure": "", "value": 0.0})
            rows += [{**key, "measure": name, "value": value} for name, value in values.items()]
    empty = pd.DataFrame()
    return Variability(
        class_names=list(PHANTOM.classes),
        unit="mm",
        deepest=PHANTOM.size[0] * PHANTOM.spacing[0],
        shown={},
        boundaries=boundaries,
        measures=pd.DataFrame(keys),
        raters=pd.DataFrame(rows),
        profiles=empty,
        bins=empty,
        convergence=empty,
    )


def main() -> None:
    """Write the tables and the rows of both raters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    volumes = simulate()
    for name, raters in RATERS.items():
        results = measure(volumes, raters)
        tables = [correlation_table(results), explained_table(results), rater_table(results)]
        write_tables([table for table in tables if table is not None], output / name)
        results.raters.to_csv(output / name / "rows.csv", index=False, float_format="%.6g")
        print("\n".join(table.to_markdown() for table in tables if table is not None))


if __name__ == "__main__":
    main()
