"""A data set of phantoms, written in the folder format of the real sets."""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from cm_lightning.data.images import write_meta_image, write_nifti
from cm_lightning.data.phantom.acoustics import BeamGrid, Scanner, log_compress, receive
from cm_lightning.data.phantom.anatomy import (
    MUSCLE_CLASSES,
    THYROID_CLASSES,
    Body,
    FloatArray,
    Structure,
    Variant,
    draw_body,
)
from cm_lightning.errors import InputError

AXIAL_SAMPLE = 0.16  # mm; resolves the axial point spread function
BEAM_PITCH = 0.32  # mm; resolves the lateral one
CONVEX_RADIUS = 50.0  # mm; of an abdominal probe
CONVEX_ANGLE = 30.0  # degrees to either side


@dataclass(frozen=True)
class SimulatedVolume:
    """One simulated sweep in (depth, lateral, elevation) order.

    Attributes:
        image: Grey values.
        label: Values of the label file.
        domain: Insonified pixels of every frame, ``(depth, lateral)``.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    domain: NDArray[np.bool_]


@dataclass(frozen=True)
class Phantom:
    """A synthetic 3D ultrasound data set.

    Seeded: the same settings write the same bytes. Confidence maps take no part in it.

    Args:
        variant: ``muscle`` writes the layout of LEG-3D-US (soleus, gastrocnemius medialis and lateralis), ``thyroid``
            that of SegThy (thyroid, carotid, jugular).
        patients: Number of patients, one volume each.
        size: Voxels in depth, lateral and elevation.
        spacing: Voxel size in mm in depth, lateral and elevation.
        probe: ``linear``, or ``convex`` with black corners beside a fan.
        seed: Seed of the whole set.

    Raises:
        InputError: A size, spacing or number of patients is not positive.
    """

    variant: Variant = "muscle"
    patients: int = 16
    size: tuple[int, int, int] = (96, 96, 96)
    spacing: tuple[float, float, float] = (0.6, 0.6, 1.2)
    probe: Literal["linear", "convex"] = "linear"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse empty volumes."""
        if self.patients < 1 or min(self.size) < 1 or min(self.spacing) <= 0:
            raise InputError(
                f"patients, size and spacing must be positive, found {self.patients}, {self.size} and {self.spacing}."
            )

    @property
    def classes(self) -> dict[str, int]:
        """Value of every class in the label files."""
        return MUSCLE_CLASSES if self.variant == "muscle" else THYROID_CLASSES

    def simulate(self, patient: int) -> SimulatedVolume:
        """Simulate one patient's volume.

        Args:
            patient: Number of the patient, from 0.

        Returns:
            The volume.
        """
        generator = np.random.default_rng([self.seed, patient, 0 if self.variant == "muscle" else 1])
        depth_mm, width, length = (n * step for n, step in zip(self.size, self.spacing, strict=True))
        body = draw_body(self.variant, (depth_mm, width, length), generator)
        depth, lateral, elevation = self._pixel_centres()
        label = _paint_label(body(depth, lateral, elevation), self.classes, self.size)
        if self.probe == "linear":
            image = self._scan_linear(body, generator)
            domain = np.ones(self.size[:2], dtype=bool)
        else:
            image, domain = self._scan_convex(body, generator)
            label = label * domain[:, :, None]
        return SimulatedVolume(image, label, domain)

    def write(self, root: Path) -> None:
        """Simulate every patient and write the data set, on all processors.

        Args:
            root: Folder to write to; created where needed.
        """
        root.mkdir(parents=True, exist_ok=True)
        workers = min(os.cpu_count() or 1, self.patients)
        # Threads: array operations release the interpreter, and new processes would import torch for ten seconds.
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(_write_patient, self, patient, root) for patient in range(self.patients)]
            for job in tqdm(
                as_completed(jobs), total=len(jobs), desc=f"Simulating {self.variant} phantoms", unit="patient"
            ):
                job.result()

    def _pixel_centres(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Coordinates in mm of the pixels of the volume, broadcastable."""
        depth, lateral, elevation = (
            ((np.arange(n) + 0.5) * step).astype(np.float32) for n, step in zip(self.size, self.spacing, strict=True)
        )
        lateral -= lateral.mean()
        return depth[:, None, None], lateral[None, :, None], elevation[None, None, :]

    def _scan_linear(self, body: Body, generator: np.random.Generator) -> NDArray[np.uint8]:
        """Beams straight down, several a pixel; a pixel shows the mean envelope of its samples."""
        axial = max(1, round(self.spacing[0] / AXIAL_SAMPLE))
        beams = max(1, round(self.spacing[1] / BEAM_PITCH))
        shape = (self.size[0] * axial, self.size[1] * beams, self.size[2])
        step, pitch = self.spacing[0] / axial, self.spacing[1] / beams
        depth = ((np.arange(shape[0]) + 0.5) * step).astype(np.float32)[:, None, None]
        lateral = ((np.arange(shape[1]) + 0.5 - shape[1] / 2) * pitch).astype(np.float32)[None, :, None]
        elevation = self._pixel_centres()[2]
        grid = BeamGrid(step, np.full(shape[0], pitch, dtype=np.float32), self.spacing[2], shape)
        scanner = Scanner()
        echo = receive(body(depth, lateral, elevation), grid, scanner, generator)
        envelope = np.abs(echo).reshape(self.size[0], axial, self.size[1], beams, -1).mean(axis=(1, 3))
        return log_compress(envelope, scanner.dynamic_range)

    def _scan_convex(self, body: Body, generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Beams fanned from an arc, then scan conversion; pixels outside the fan are black."""
        depth_mm, width = self.size[0] * self.spacing[0], self.size[1] * self.spacing[1]
        half = np.radians(CONVEX_ANGLE)
        # The radius shrinks for small volumes, so that the fan spans the picture.
        radius = min(CONVEX_RADIUS, max(0.1, (width / 2) / np.sin(half) - depth_mm * 0.8))
        sag = radius * (1 - np.cos(half))
        reach = depth_mm - sag
        samples, beams = (
            max(2, round(reach / AXIAL_SAMPLE)),
            max(2, round(2 * half * (radius + reach / 2) / BEAM_PITCH)),
        )
        distance = ((np.arange(samples) + 0.5) * reach / samples).astype(np.float32)
        angle = np.linspace(-half, half, beams, dtype=np.float32)
        lateral = ((radius + distance)[:, None] * np.sin(angle))[:, :, None]
        depth = ((radius + distance)[:, None] * np.cos(angle) - radius * np.cos(half))[:, :, None]
        elevation = self._pixel_centres()[2]
        grid = BeamGrid(
            reach / samples,
            (radius + distance) * np.float32(2 * half / (beams - 1)),
            self.spacing[2],
            (samples, beams, self.size[2]),
        )
        scanner = Scanner()
        # The skin follows the probe: the body is bent so that its depth is counted from the arc.
        bent = np.broadcast_to(distance[:, None, None], depth.shape)
        echo = receive(body(bent, lateral, elevation), grid, scanner, generator)
        frames = log_compress(np.abs(echo), scanner.dynamic_range)
        rows, columns, _ = self._pixel_centres()
        x, z = columns[:, :, 0], rows[:, :, 0] + radius * np.cos(half)
        from_arc, beam = np.hypot(x, z) - radius, np.arctan2(x, z)
        domain = (from_arc >= 0) & (from_arc < reach) & (np.abs(beam) <= half)
        where = np.stack([from_arc / (reach / samples) - 0.5, (beam + half) / (2 * half) * (beams - 1)])
        image = np.stack(
            [ndimage.map_coordinates(frame, where, order=1, mode="nearest") for frame in np.moveaxis(frames, 2, 0)],
            axis=2,
        )
        return np.where(domain[:, :, None], np.maximum(image, 1), 0).astype(np.uint8), domain


def _paint_label(structures: list[Structure], classes: dict[str, int], size: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Paint the label; whatever lies over a class without being one clears it."""
    label = np.zeros(size, dtype=np.uint8)
    for structure in structures:
        np.copyto(label, classes.get(structure.name, 0), where=structure.distance < 0)
    return label


def _write_patient(phantom: Phantom, patient: int, root: Path) -> None:
    """Simulate and write one patient; files are (lateral, depth, elevation) like the real ones."""
    volume = phantom.simulate(patient)
    image, label = (np.transpose(array, (1, 0, 2)) for array in (volume.image, volume.label))
    depth, lateral, elevation = phantom.spacing
    if phantom.variant == "muscle":
        # The official split of LEG-3D-US keeps about 2 / 16 for validation and 3 / 16 for testing.
        held_out = round(phantom.patients * 3 / 16), round(phantom.patients * 5 / 16)
        subset = "test" if patient < held_out[0] else "val" if patient < held_out[1] else "train"
        folder = root / subset / f"phantom{patient:02d}"
        write_meta_image(folder / "x1.mha", image, (lateral, depth, elevation))
        write_meta_image(folder / "masksX1.mha", label, (lateral, depth, elevation))
    else:
        side = "left" if patient % 2 else "right"
        affine = np.diag([lateral, depth, elevation, 1.0])
        folder = root / "US_volunteer_dataset" / "ground_truth_data"
        write_nifti(folder / "US" / f"{patient:03d}_P1_1_{side}_US.nii", image, affine)
        write_nifti(folder / "US_thyroid_label" / f"{patient:03d}_P1_1_{side}.nii", label, affine)
