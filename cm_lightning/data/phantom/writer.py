"""A data set of phantoms, written in the folder format of the real sets."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data.cases import Case
from cm_lightning.data.confidence_maps import frame_maps
from cm_lightning.data.frames import to_volume
from cm_lightning.data.layouts import LAYOUTS, LayoutName
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
from cm_lightning.data.phantom.raters import RaterModel
from cm_lightning.data.reading import image_geometry
from cm_lightning.errors import InputError
from cm_lightning.io import Axes, read_image, write_meta_image, write_nifti

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

    Seeded: the same settings write the same bytes. Confidence maps take no part in the images, nor in the raters unless
    these are told to follow them.

    Raters can be asked for at once or later, and several models can lie side by side::

        python -m cm_lightning phantom DIR --raters.sd 0.5 --raters.depth 0.2
        python -m cm_lightning phantom DIR --raters.confidence 1.5 --raters.folder ratersTr_confidence

    Args:
        variant: ``muscle`` writes the layout of LEG-3D-US (soleus, gastrocnemius medialis and lateralis), ``thyroid``
            that of SegThy (thyroid, carotid, jugular).
        patients: Number of patients, one volume each.
        size: Voxels in depth, lateral and elevation.
        spacing: Voxel size in mm in depth, lateral and elevation.
        probe: ``linear``, or ``convex`` with black corners beside a fan.
        seed: Seed of the whole set.
        raters: Also write labels of simulated raters, ``ratersTr/CASE/<rater>_<repeat>``; images and labels are the
            same with and without them.

    Raises:
        InputError: A size, spacing or number of patients is not positive.
    """

    variant: Variant = "muscle"
    patients: int = 16
    size: tuple[int, int, int] = (96, 96, 96)
    spacing: tuple[float, float, float] = (0.6, 0.6, 1.2)
    probe: Literal["linear", "convex"] = "linear"
    seed: int = 0
    raters: RaterModel | None = None

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

        With raters, the images and labels that are already there are kept and only what is missing is written, so that
        raters can be added to a data set.

        Args:
            root: Folder to write to; created where needed.

        Raises:
            InputError: Raters are asked for, and the folder holds these raters' labels or images of other settings.
        """
        root.mkdir(parents=True, exist_ok=True)
        patients = list(range(self.patients))
        if self.raters is not None:
            folder = root / self.raters.folder
            if folder.exists():
                raise InputError(f"{folder} already holds labels of raters; remove it or choose another raters.folder.")
            self._check_same_images(root)
            patients = [
                patient for patient in patients if not all(file.is_file() for file in self._files(patient, root))
            ]
        _run_on_all_cores(
            lambda patient: self._write_patient(patient, root),
            patients,
            f"Simulating {self.variant} phantoms",
            "patient",
        )
        if self.raters is not None:
            self._write_raters(self.raters, root, folder)

    def complete(self, root: Path) -> None:
        """Write the data set where there is none, and its raters' labels where these are missing.

        Args:
            root: The data set's folder.

        Raises:
            InputError: As for :meth:`write`.
        """
        if not root.is_dir():
            # Under another name until it is whole: an interrupted simulation leaves no half data set.
            partial = root.with_name(f"{root.name}.partial")
            self.write(partial)
            partial.rename(root)
        elif self.raters is not None and not (root / self.raters.folder).is_dir():
            self.write(root)

    @property
    def _layout(self) -> LayoutName:
        return "leg3d" if self.variant == "muscle" else "segthy"

    def _files(self, patient: int, root: Path) -> tuple[Path, Path]:
        """Name the image and the label file of a patient."""
        if self.variant == "muscle":
            # The official split of LEG-3D-US keeps about 2 / 16 for validation and 3 / 16 for testing.
            held_out = round(self.patients * 3 / 16), round(self.patients * 5 / 16)
            subset = "test" if patient < held_out[0] else "val" if patient < held_out[1] else "train"
            folder = root / subset / f"phantom{patient:02d}"
            return folder / "x1.mha", folder / "masksX1.mha"
        name = f"{patient:03d}_P1_1_{'left' if patient % 2 else 'right'}"
        folder = root / "US_volunteer_dataset" / "ground_truth_data"
        return folder / "US" / f"{name}_US.nii", folder / "US_thyroid_label" / f"{name}.nii"

    def _write_patient(self, patient: int, root: Path) -> None:
        """Simulate and write one patient."""
        volume = self.simulate(patient)
        for path, array in zip(self._files(patient, root), (volume.image, volume.label), strict=True):
            _write_volume(path, array, self.spacing)

    def _check_same_images(self, root: Path) -> None:
        """Raters must not be added to something else than what these settings write."""
        expected = {self._files(patient, root)[0] for patient in range(self.patients)}
        shape, spacing = ((lateral, depth, *rest) for depth, lateral, *rest in (self.size, self.spacing))
        for case in LAYOUTS[self._layout].find(root):
            file = read_image(case.image)
            same_grid = file.array.shape == shape and np.allclose(file.spacing or np.nan, spacing)
            if case.image not in expected or not same_grid:
                raise InputError(
                    f"{case.image} is not of a set of {self.patients} {self.variant} phantoms of {self.size} voxels of "
                    f"{self.spacing} mm; give the settings that the images were written with, or another folder."
                )

    def _write_raters(self, model: RaterModel, root: Path, folder: Path) -> None:
        """Write the raters' labels of all cases; their folder appears whole or not at all."""
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        cases = list(LAYOUTS[self._layout].find(root))
        _run_on_all_cores(
            lambda case: self._write_raters_of(model, case, partial / case.id), cases, "Drawing raters' labels", "case"
        )
        (partial / "model.json").write_text(json.dumps(asdict(model), indent=2) + "\n")
        partial.rename(folder)

    def _write_raters_of(self, model: RaterModel, case: Case, folder: Path) -> None:
        """Write the raters' labels of one case, from its files."""
        assert case.label is not None
        axes = Axes(LAYOUTS[self._layout].axes)
        image, label = (axes.from_file(read_image(path).array) for path in (case.image, case.label))
        confidence = None
        if model.confidence > 0:
            geometry = image_geometry(image, "whole" if self.probe == "linear" else "convex", self.spacing)
            confidence = to_volume(np.concatenate(list(frame_maps(ConfidenceMapSolver(), image, geometry))))
        # Outside the fan of a convex probe, and only there, the image is black.
        fan = image.max(axis=2) > 0 if self.probe == "convex" else None
        suffix = ".mha" if self.variant == "muscle" else ".nii.gz"
        for drawn in model.draw(label, self.spacing, case.id, confidence, fan):
            _write_volume(folder / f"{drawn.rater}_{drawn.repeat:03d}{suffix}", drawn.label, self.spacing)

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


def _write_volume(path: Path, array: NDArray[np.uint8], spacing: tuple[float, float, float]) -> None:
    """Write a volume; files are (lateral, depth, elevation) like the real ones."""
    depth, lateral, elevation = spacing
    array = np.transpose(array, (1, 0, 2))
    if path.suffix == ".mha":
        write_meta_image(path, array, (lateral, depth, elevation))
    else:
        write_nifti(path, array, np.diag([lateral, depth, elevation, 1.0]))


def _run_on_all_cores(work: Callable[[Any], None], items: Sequence[Any], title: str, unit: str) -> None:
    """Do the same work on all items, with a progress bar."""
    if not items:
        return
    # Threads: array operations release the interpreter, and new processes would import torch for ten seconds.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(items))) as pool:
        jobs = [pool.submit(work, item) for item in items]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=title, unit=unit):
            job.result()
