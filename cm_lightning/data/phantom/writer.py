"""Data sets of phantoms in the folder layouts of real data sets."""

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

# Distance between samples in mm, small enough to resolve the axial point spread function.
AXIAL_SAMPLE = 0.16
# Distance between beams in mm, small enough to resolve the lateral point spread function.
BEAM_PITCH = 0.32
# Radius of an abdominal convex probe in mm, and half of its opening angle in degrees.
CONVEX_RADIUS = 50.0
CONVEX_ANGLE = 30.0


@dataclass(frozen=True)
class SimulatedVolume:
    """Simulated sweep.

    Attributes:
        image: Grey values, ``(depth, lateral, elevation)``.
        label: Label with the values of the label file, ``(depth, lateral, elevation)``.
        domain: Insonified pixels, which are the same in all frames, ``(depth, lateral)``.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    domain: NDArray[np.bool_]


@dataclass(frozen=True)
class Phantom:
    """Synthetic 3D ultrasound data set.

    The files are reproducible. Images do not depend on confidence maps, and the labels of raters depend on them only if
    ``raters.confidence`` is set. Labels of raters can be added later, also with several rater models::

        python -m cm_lightning phantom DIR --raters.sd 0.5 --raters.depth 0.2
        python -m cm_lightning phantom DIR --raters.confidence 1.5 --raters.folder ratersTr_confidence

    Args:
        variant: ``muscle`` for the layout of LEG-3D-US (soleus, gastrocnemius medialis and lateralis), ``thyroid`` for
            the layout of SegThy (thyroid, carotid, jugular).
        patients: Number of patients, with one volume per patient.
        size: Number of voxels in the depth, lateral and elevational direction, for example ``[96,96,96]``.
        spacing: Voxel size in mm in the depth, lateral and elevational direction, for example ``[0.6,0.6,1.2]``.
        probe: ``linear``, or ``convex`` for a fan with black corners.
        seed: Seed of the data set.
        raters: Model of raters, with labels that are written to ``<raters.folder>/CASE/<rater>_<repeat>``; no raters by
            default (null). Images and true labels do not depend on it.

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
        """Check the arguments."""
        if self.patients < 1 or min(self.size) < 1 or min(self.spacing) <= 0:
            raise InputError(
                f"patients, size and spacing must be positive, found {self.patients}, {self.size} and {self.spacing}."
            )

    @property
    def classes(self) -> dict[str, int]:
        """Names of the classes and their values in the label files."""
        return MUSCLE_CLASSES if self.variant == "muscle" else THYROID_CLASSES

    def simulate(self, patient: int) -> SimulatedVolume:
        """Simulate the volume of one patient.

        Args:
            patient: Number of the patient, from 0.

        Returns:
            Image, label and insonified region.
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
        """Simulate all patients with all CPU cores and write the data set.

        If there are raters, existing images and labels are kept, so that raters can be added to a data set.

        Args:
            root: Folder of the data set, which is created if necessary.

        Raises:
            InputError: Raters are added, but the folder already contains their labels, or images with other settings.
        """
        root.mkdir(parents=True, exist_ok=True)
        patients = list(range(self.patients))
        if self.raters is not None:
            folder = root / self.raters.folder
            if folder.exists():
                raise InputError(f"{folder} already contains labels of raters; remove it or set another raters.folder.")
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
        """Write the data set if it does not exist, or only the labels of its raters if they are missing.

        Args:
            root: Folder of the data set.

        Raises:
            InputError: See :meth:`write`.
        """
        if not root.is_dir():
            # The folder is renamed when it is complete, so that an interruption leaves no incomplete data set.
            partial = root.with_name(f"{root.name}.partial")
            self.write(partial)
            partial.rename(root)
        elif self.raters is not None and not (root / self.raters.folder).is_dir():
            self.write(root)

    @property
    def _layout(self) -> LayoutName:
        return "leg3d" if self.variant == "muscle" else "segthy"

    def _files(self, patient: int, root: Path) -> tuple[Path, Path]:
        """Return the image file and the label file of a patient."""
        if self.variant == "muscle":
            # The official split of LEG-3D-US uses about 3 / 16 of the patients for testing and 2 / 16 for validation.
            n_test, n_held_out = round(self.patients * 3 / 16), round(self.patients * 5 / 16)
            subset = "test" if patient < n_test else "val" if patient < n_held_out else "train"
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
        """Check that existing images, to which raters are added, were written with the same settings."""
        expected = {self._files(patient, root)[0] for patient in range(self.patients)}
        shape, spacing = ((lateral, depth, elevation) for depth, lateral, elevation in (self.size, self.spacing))
        for case in LAYOUTS[self._layout].find(root):
            file = read_image(case.image)
            same_grid = file.array.shape == shape and np.allclose(file.spacing or np.nan, spacing)
            if case.image not in expected or not same_grid:
                raise InputError(
                    f"{case.image} does not belong to {self.patients} {self.variant} phantoms of {self.size} voxels of "
                    f"{self.spacing} mm; expected the settings with which the images were written, or another folder."
                )

    def _write_raters(self, model: RaterModel, root: Path, folder: Path) -> None:
        """Write the labels of raters for all cases to a folder that is renamed when it is complete."""
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        cases = list(LAYOUTS[self._layout].find(root))
        _run_on_all_cores(
            lambda case: self._write_case_raters(model, case, partial / case.id), cases, "Drawing rater labels", "case"
        )
        (partial / "model.json").write_text(json.dumps(asdict(model), indent=2) + "\n")
        partial.rename(folder)

    def _write_case_raters(self, model: RaterModel, case: Case, folder: Path) -> None:
        """Read the files of one case and write the labels of its raters."""
        assert case.label is not None
        axes = Axes(LAYOUTS[self._layout].axes)
        image, label = (axes.from_file(read_image(path).array) for path in (case.image, case.label))
        confidence = None
        if model.confidence > 0:
            geometry = image_geometry(image, "whole" if self.probe == "linear" else "convex", self.spacing)
            confidence = to_volume(np.concatenate(list(frame_maps(ConfidenceMapSolver(), image, geometry))))
        # Images of convex probes are black only outside the fan.
        fan = image.max(axis=2) > 0 if self.probe == "convex" else None
        suffix = ".mha" if self.variant == "muscle" else ".nii.gz"
        for simulated in model.draw(label, self.spacing, case.id, confidence, fan):
            path = folder / f"{simulated.rater}_{simulated.repeat:03d}{suffix}"
            _write_volume(path, simulated.label, self.spacing)

    def _pixel_centres(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the broadcastable coordinates of the voxels in mm."""
        depth, lateral, elevation = (
            ((np.arange(n) + 0.5) * step).astype(np.float32) for n, step in zip(self.size, self.spacing, strict=True)
        )
        lateral -= lateral.mean()
        return depth[:, None, None], lateral[None, :, None], elevation[None, None, :]

    def _scan_linear(self, body: Body, generator: np.random.Generator) -> NDArray[np.uint8]:
        """Simulate vertical beams, several per pixel, and average the envelope over each pixel."""
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
        """Simulate beams that start at an arc, and scan-convert them to a fan on a black background.

        Returns:
            Image, ``(depth, lateral, elevation)``, and mask of the fan, ``(depth, lateral)``.
        """
        depth_mm, width = self.size[0] * self.spacing[0], self.size[1] * self.spacing[1]
        half_angle = np.radians(CONVEX_ANGLE)
        # The radius is smaller for small volumes, so that the fan covers the width of the image.
        radius = min(CONVEX_RADIUS, max(0.1, (width / 2) / np.sin(half_angle) - depth_mm * 0.8))
        sag = radius * (1 - np.cos(half_angle))
        scan_depth = depth_mm - sag
        samples, beams = (
            max(2, round(scan_depth / AXIAL_SAMPLE)),
            max(2, round(2 * half_angle * (radius + scan_depth / 2) / BEAM_PITCH)),
        )
        distance = ((np.arange(samples) + 0.5) * scan_depth / samples).astype(np.float32)
        angle = np.linspace(-half_angle, half_angle, beams, dtype=np.float32)
        lateral = ((radius + distance)[:, None] * np.sin(angle))[:, :, None]
        depth = ((radius + distance)[:, None] * np.cos(angle) - radius * np.cos(half_angle))[:, :, None]
        elevation = self._pixel_centres()[2]
        grid = BeamGrid(
            scan_depth / samples,
            (radius + distance) * np.float32(2 * half_angle / (beams - 1)),
            self.spacing[2],
            (samples, beams, self.size[2]),
        )
        scanner = Scanner()
        # The skin follows the shape of the probe: depths in the body are distances from the arc.
        arc_depth = np.broadcast_to(distance[:, None, None], depth.shape)
        echo = receive(body(arc_depth, lateral, elevation), grid, scanner, generator)
        frames = log_compress(np.abs(echo), scanner.dynamic_range)
        rows, columns, _ = self._pixel_centres()
        x, z = columns[:, :, 0], rows[:, :, 0] + radius * np.cos(half_angle)
        pixel_depth, pixel_angle = np.hypot(x, z) - radius, np.arctan2(x, z)
        domain = (pixel_depth >= 0) & (pixel_depth < scan_depth) & (np.abs(pixel_angle) <= half_angle)
        beam = (pixel_angle + half_angle) / (2 * half_angle) * (beams - 1)
        positions = np.stack([pixel_depth / (scan_depth / samples) - 0.5, beam])
        image = np.stack(
            [ndimage.map_coordinates(frame, positions, order=1, mode="nearest") for frame in np.moveaxis(frames, 2, 0)],
            axis=2,
        )
        return np.where(domain[:, :, None], np.maximum(image, 1), 0).astype(np.uint8), domain


def _paint_label(structures: list[Structure], classes: dict[str, int], size: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the label of structures. Each structure replaces previous ones; other structures than classes are 0."""
    label = np.zeros(size, dtype=np.uint8)
    for structure in structures:
        np.copyto(label, classes.get(structure.name, 0), where=structure.distance < 0)
    return label


def _write_volume(path: Path, array: NDArray[np.uint8], spacing: tuple[float, float, float]) -> None:
    """Write a volume with the axes of the real files, ``(lateral, depth, elevation)``."""
    depth, lateral, elevation = spacing
    array = np.transpose(array, (1, 0, 2))
    if path.suffix == ".mha":
        write_meta_image(path, array, (lateral, depth, elevation))
    else:
        write_nifti(path, array, np.diag([lateral, depth, elevation, 1.0]))


def _run_on_all_cores(function: Callable[[Any], None], items: Sequence[Any], title: str, unit: str) -> None:
    """Call a function for all items in parallel, with a progress bar."""
    if not items:
        return
    # Threads are sufficient, because array operations release the GIL. New processes would take ten seconds to start.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(items))) as pool:
        jobs = [pool.submit(function, item) for item in items]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=title, unit=unit):
            job.result()
