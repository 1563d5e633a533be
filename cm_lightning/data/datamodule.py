"""The data module: cases, folds, confidence maps and augmentation behind one configuration."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_info
from monai.data import CacheDataset
from monai.transforms import RandCropByPosNegLabeld, SpatialPadd
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from cm_lightning.confidence import ConfidenceMapSolver
from cm_lightning.data.augmentation import INTERPOLATION, Augmentation, Batch
from cm_lightning.data.cases import Case, describe_axes, read_case
from cm_lightning.data.confidence_maps import ConfidenceCache, DomainName, find_domain, find_probe_fan
from cm_lightning.data.duplicates import near_duplicate_groups
from cm_lightning.data.layouts import LAYOUTS, LayoutName, find_cases
from cm_lightning.data.pairs import PairDataset
from cm_lightning.data.phantom import Phantom
from cm_lightning.data.preparation import ConfidenceOf, DepthRamp, PrepareCase, StoredMap
from cm_lightning.data.splits import Fold, SplitName, load_or_make_folds, split_file_name
from cm_lightning.errors import InputError
from cm_lightning.io import Axes, is_image, stem

ConfidenceMode = Literal["native", "on_the_fly", "none"]
ConfidenceSource = Literal["solver", "depth", "shuffled"]


class UltrasoundDataModule(LightningDataModule):
    """Ultrasound images with labels, patient-wise folds and confidence maps.

    A confidence map belongs to a full frame and is computed before any crop or rotation: ``native`` on the frames at
    file resolution, once a case, kept on disk; ``on_the_fly`` on the batch's device, on the whole frames of the
    network's grid, after gain, time gain and speckle were changed and before geometry was.

    Args:
        root: The data set's folder.
        classes: Value in the label files of every class, in the order of the network's outputs; background (0) comes
            first and is not named.
        layout: How the data set lies on disk: LEG-3D-US, SegThy, nnU-Net raw, or ``images`` and ``masks`` folders.
        spatial_dims: 2 for frames, 3 for volumes.
        spatial_size: Whole images are resized to this grid (depth, lateral, elevation).
        patch_size: In place of ``spatial_size``, train on patches of this size at the images' own resolution, cut
            after the maps were made. Testing slides a window of this size.
        patches_per_case: Patches cut from every case of a batch.
        foreground: Share of the patches that are centred on a class, the rest on background.
        spacing: With ``patch_size``, common voxel size (depth, lateral, elevation) that images are resampled to, in mm
            (pixels for pictures).
        axes: File axes in order, for example "lateral depth elevation"; a minus sign reverses one. The layout's own by
            default.
        spacing_mm: Voxel size in mm in file order, where the files do not tell it.
        domain: Insonified pixels: ``whole`` images, the rectangle of a ``linear`` probe inside black bands, the fan of
            a ``convex`` probe, or ``auto`` for a fan where one is found and else a rectangle.
        patient_pattern: Regular expression on the case's id whose first group is the patient.
        patient_table: CSV file with the columns case and patient, in place of the pattern.
        image_folds: Allow folds of images where no patient is known; near-duplicates stay together, and every table
            says so.
        split: ``study`` (three disjoint triples of test patients), ``kfold`` or ``official``.
        fold: Which fold to run.
        n_folds: Number of folds of ``kfold``.
        split_seed: Seed of the folds.
        split_file: File of the folds, reused where it exists; in ``cache_dir`` by default.
        confidence_mode: When maps are computed.
        confidence_source: What takes the place of the confidence map everywhere: the solver's map of the image, or one
            of two controls, a ramp that falls with ``depth`` and knows nothing of the image, and the map of a case of
            another patient (``shuffled``, drawn with ``split_seed``), inside this image's domain.
        solver: Parameters of the maps.
        labelled_fraction: Share of the training patients whose labels may be used, drawn with ``split_seed``. The
            others take part in the pairs of a registration, without labels, and in nothing else.
        pairs_per_case: Give every case with a partner of another patient under the key ``partner``, and every training
            case so many times an epoch, each time with another partner; 0 for single cases. Set by the task.
        augmentation: Random changes of training batches.
        batch_size: Cases in a training or validation batch.
        num_workers: Loader processes. Prepared cases are cached, so that few are needed.
        cache_rate: Share of the prepared cases kept in memory.
        cache_dir: Where maps and folds are kept between runs.
        phantom: Write this phantom data set to ``root`` where there is none, and its raters' labels where these are
            missing.
        predict_path: Image file or folder that ``predict`` runs on; the fold's test cases by default.

    Raises:
        InputError: Arguments that do not fit together.
    """

    def __init__(
        self,
        root: Path,
        classes: dict[str, int],
        layout: LayoutName = "leg3d",
        spatial_dims: Literal[2, 3] = 3,
        spatial_size: list[int] | None = None,
        patch_size: list[int] | None = None,
        patches_per_case: int = 2,
        foreground: float = 0.5,
        spacing: list[float] | None = None,
        axes: str | None = None,
        spacing_mm: list[float] | None = None,
        domain: DomainName = "whole",
        patient_pattern: str | None = None,
        patient_table: Path | None = None,
        image_folds: bool = False,
        split: SplitName = "kfold",
        fold: int = 0,
        n_folds: int = 3,
        split_seed: int = 0,
        split_file: Path | None = None,
        confidence_mode: ConfidenceMode = "native",
        confidence_source: ConfidenceSource = "solver",
        solver: ConfidenceMapSolver = ConfidenceMapSolver(),  # noqa: B008 (frozen)
        labelled_fraction: float = 1.0,
        pairs_per_case: int = 0,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        batch_size: int = 1,
        num_workers: int = 0,
        cache_rate: float = 1.0,
        cache_dir: Path = Path("outputs/cache"),
        phantom: Phantom | None = None,
        predict_path: Path | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.classes = classes
        self.layout: LayoutName = layout
        self.spatial_dims = spatial_dims
        self.spatial_size = tuple(spatial_size) if spatial_size else None
        self.patch_size = tuple(patch_size) if patch_size else None
        self.patches_per_case = patches_per_case
        self.spacing = tuple(spacing) if spacing else None
        self.axes = Axes(axes or " ".join(LAYOUTS[layout].axes.split()[:3]))
        self.spacing_mm = tuple(spacing_mm) if spacing_mm else None
        self.domain: DomainName = domain
        self.patient_pattern = patient_pattern
        self.patient_table = patient_table
        self.image_folds = image_folds
        self.split: SplitName = split
        self.fold = fold
        self.n_folds = n_folds
        self.split_seed = split_seed
        self.split_file = split_file
        self.confidence_mode: ConfidenceMode = confidence_mode
        self.confidence_source: ConfidenceSource = confidence_source
        self.solver = solver
        self.labelled_fraction = labelled_fraction
        self.pairs_per_case = pairs_per_case
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache_rate = cache_rate
        self.cache_dir = Path(cache_dir)
        self.phantom = phantom
        self.predict_path = predict_path
        self.solve_seconds = 0.0
        self.solved_frames = 0
        self._check_arguments(foreground)
        self._crop = self._make_crop(foreground)

    @property
    def grouping(self) -> str:
        """What a fold is made of, for tables."""
        return "image group (the data set names no patients)" if self._without_patients else "patient"

    @cached_property
    def cases(self) -> list[Case]:
        """All cases of the data set, each with its patient (or its group of near-duplicate images)."""
        cases = self._found_cases
        if not self._without_patients:
            return cases
        if not self.image_folds:
            raise InputError(
                f"The data set at {self.root} does not tell which patient an image is of, so folds would mix patients. "
                "Give data.patient_pattern or data.patient_table, or accept folds of images with data.image_folds true."
            )
        images = [self._thumbnail(case) for case in tqdm(cases, desc="Comparing images", unit="image")]
        groups = near_duplicate_groups(images)
        return [replace(case, patient=f"group{number:04d}") for case, number in zip(cases, groups, strict=True)]

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds of the split, from its file where there is one."""
        name = split_file_name(self.cases, self.split, self.n_folds, self.split_seed)
        path = self.split_file or self.cache_dir / "splits" / name
        return load_or_make_folds(path, self.cases, self.split, self.n_folds, self.split_seed)

    @property
    def training_set(self) -> CacheDataset:
        """The prepared training cases, after ``setup("fit")``."""
        return self._train

    def test_plan(self) -> dict[str, Any]:
        """Say which cases are tested in which fold, so that pooled results can be checked to be complete.

        Returns:
            ``split`` and ``split_seed``, the ``fold`` that is run, and ``test_cases``: a list of case ids for every
            fold.
        """
        tested = [[case.id for case in self.cases if case.patient in fold.test] for fold in self.folds]
        return {"split": self.split, "split_seed": self.split_seed, "fold": self.fold, "test_cases": tested}

    @property
    def labelled_patients(self) -> list[str]:
        """Training patients of the fold whose labels may be used."""
        patients = sorted({case.patient for case in self.cases_of("train")})
        number = max(1, round(self.labelled_fraction * len(patients)))
        drawn = np.random.default_rng(self.split_seed).permutation(patients)[:number]
        return sorted(drawn.tolist())

    def cases_of(self, subset: Literal["train", "val", "test", "predict"]) -> list[Case]:
        """List the cases of one set of the chosen fold.

        Args:
            subset: Which set.

        Returns:
            Its cases; for ``predict``, those at ``predict_path`` where it is given.

        Raises:
            InputError: There is no such fold, or no image at ``predict_path``.
        """
        if subset == "predict" and self.predict_path is not None:
            return _unlabelled_cases(Path(self.predict_path))
        if not 0 <= self.fold < len(self.folds):
            raise InputError(f"data.fold must be 0 to {len(self.folds) - 1} for split {self.split}, found {self.fold}.")
        patients = getattr(self.folds[self.fold], "test" if subset == "predict" else subset)
        return [case for case in self.cases if case.patient in patients]

    def prepare_data(self) -> None:
        """Write the phantom where asked to, check every case, and compute missing confidence maps.

        Runs in one process, before training starts, so that bad input is reported before time is spent.
        """
        if self.phantom is not None and not self.root.is_dir():
            # Under another name until it is whole: an interrupted simulation leaves no half data set.
            partial = self.root.with_name(f"{self.root.name}.partial")
            self.phantom.write(partial)
            partial.rename(self.root)
        elif (
            self.phantom is not None
            and self.phantom.raters is not None
            and not (self.root / self.phantom.raters.folder).is_dir()
        ):
            self.phantom.write(self.root)
        cases = self._cases_in_use()
        cache = self._confidence_cache()
        missing = []
        for index, case in enumerate(tqdm(cases, desc="Checking cases", unit="case")):
            arrays = read_case(case, self.axes, self.classes, self.spacing_mm)
            if index == 0:
                rank_zero_info(f"Axes of {case.image.name} ({self.axes.text}): {describe_axes(arrays)}.")
            if cache is not None and not cache.path(case.image).is_file():
                missing.append((case, arrays.image.size // (arrays.image.shape[0] * arrays.image.shape[1])))
        if cache is not None and missing:
            self._compute_maps(cache, missing)

    def setup(self, stage: str) -> None:
        """Prepare the cases of a stage.

        Args:
            stage: "fit", "validate", "test" or "predict".
        """
        match stage:
            case "fit":
                self._train = self._dataset("train")
                self._val = self._dataset("val")
            case "validate":
                self._val = self._dataset("val")
            case "test":
                self._test = self._dataset("test")
            case "predict":
                self._predict = self._dataset("predict")

    def train_dataloader(self) -> DataLoader[Any]:
        """Give shuffled batches of the fold's training cases."""
        return self._loader(self._paired(self._train, self.pairs_per_case), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Give batches of the fold's validation cases, in order."""
        return self._loader(self._paired(self._val), 1 if self.patch_size else self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """Give the fold's test cases one at a time: their native sizes differ."""
        return self._loader(self._paired(self._test), 1)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Give the cases to predict one at a time."""
        return self._loader(self._predict, 1)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Augment training batches and compute maps on the fly, on the batch's device.

        Args:
            batch: A collated batch, or in patch training a list of cases.
            dataloader_idx: Which loader it is from.

        Returns:
            The batch that the task sees.
        """
        training = self.trainer is not None and self.trainer.training
        if "partner" in batch:
            change = self.augment if training else self.add_maps
            return {**change(batch), "partner": change(batch["partner"])}
        parts = batch if isinstance(batch, list) else [batch]
        done = [self.augment(part) if training else self.add_maps(part) for part in parts]
        if not (training and self._crop is not None):
            return done[0]
        return default_collate([patch for part in done for patch in self._cut_patches(part)])

    def augment(self, batch: Batch) -> Batch:
        """Do what happens to a training batch: knobs, then maps where they are made on the fly, then geometry.

        Args:
            batch: A collated batch on its device.

        Returns:
            An augmented one.
        """
        return self.augmentation.geometry(self.add_maps(self.augmentation.intensity(batch)))

    def add_maps(self, batch: Batch) -> Batch:
        """Compute the maps of a batch where they are made on the fly; else leave it as it is.

        Args:
            batch: A collated batch on its device.

        Returns:
            The batch, with the maps of its images.
        """
        if self.confidence_mode != "on_the_fly":
            return batch
        return {**batch, "confidence": self._maps(batch)}

    def _maps(self, batch: Batch) -> Tensor:
        """Maps of the whole frames of a batch."""
        arrays = [batch[key] for key in ("image", "domain", "source", "sink")]
        if self.spatial_dims == 3:
            arrays = [array.movedim(-1, 2) for array in arrays]
        start = time.perf_counter()
        maps = self.solver(*arrays)
        self.solve_seconds += time.perf_counter() - start
        self.solved_frames += arrays[0][..., 0, 0].numel()
        return maps.movedim(2, -1) if self.spatial_dims == 3 else maps

    def _cut_patches(self, batch: Batch) -> list[Batch]:
        """Cut patches from a batch of one case."""
        assert self._crop is not None
        pad, crop = self._crop
        crop.set_random_state(seed=int(torch.randint(2**31, (1,))))
        case = {key: batch[key][0] for key in INTERPOLATION if key in batch}
        kept = {key: batch[key][0] for key in ("spacing", "case", "patient")}
        keys = list(case)
        return [{**{key: patch[key].as_tensor() for key in keys}, **kept} for patch in crop(pad(case))]

    def _make_crop(self, foreground: float) -> tuple[SpatialPadd, RandCropByPosNegLabeld] | None:
        if self.patch_size is None:
            return None
        keys = list(INTERPOLATION)
        return SpatialPadd(keys, self.patch_size, allow_missing_keys=True), RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=self.patch_size,
            pos=foreground,
            neg=1 - foreground,
            num_samples=self.patches_per_case,
            allow_missing_keys=True,
        )

    def _check_arguments(self, foreground: float) -> None:
        if (self.spatial_size is None) == (self.patch_size is None):
            raise InputError(
                "Give either data.spatial_size (whole images on one grid) or data.patch_size (patches), "
                f"found {self.spatial_size} and {self.patch_size}."
            )
        for name in ("spatial_size", "patch_size", "spacing"):
            value = getattr(self, name)
            if value is not None and (len(value) != self.spatial_dims or min(value) <= 0):
                raise InputError(f"data.{name} must be {self.spatial_dims} positive numbers, found {list(value)}.")
        if self.spacing is not None and self.patch_size is None:
            raise InputError("data.spacing goes with data.patch_size; with data.spatial_size the grid is given.")
        if len(self.axes.names) != self.spatial_dims:
            raise InputError(
                f"data.axes {self.axes.text!r} names {len(self.axes.names)} axes; "
                f"data.spatial_dims is {self.spatial_dims}."
            )
        values = list(self.classes.values())
        if not values or 0 in values or len(set(values)) < len(values):
            raise InputError(
                f"data.classes must map every class to a label value of its own other than 0, found {self.classes}."
            )
        if self.confidence_source != "solver" and self.confidence_mode != "native":
            raise InputError(
                f"data.confidence_source {self.confidence_source} is a control that is prepared once a case and needs "
                f"data.confidence_mode native, found {self.confidence_mode}."
            )
        if not 0 < self.labelled_fraction <= 1 or self.pairs_per_case < 0:
            raise InputError(
                "data.labelled_fraction must lie in (0, 1] and data.pairs_per_case be at least 0, "
                f"found {self.labelled_fraction} and {self.pairs_per_case}."
            )
        if not 0 <= foreground <= 1:
            raise InputError(f"data.foreground must lie in [0, 1], found {foreground}.")
        if self.batch_size < 1 or self.patches_per_case < 1:
            raise InputError(
                f"data.batch_size and data.patches_per_case must be at least 1, "
                f"found {self.batch_size} and {self.patches_per_case}."
            )

    @cached_property
    def _found_cases(self) -> list[Case]:
        return find_cases(self.root, self.layout, self.patient_pattern, self.patient_table)

    @property
    def _without_patients(self) -> bool:
        return not all(case.patient for case in self._found_cases)

    def _cases_in_use(self) -> list[Case]:
        """Cases of the stage that is about to run; all sets of the fold where that is not known."""
        stage = self.trainer.state.fn if self.trainer is not None else None
        if stage == "predict":
            cases = self.cases_of("predict")
            return cases + [self._donor(case) for case in cases] if self.confidence_source == "shuffled" else cases
        return [case for subset in ("train", "val", "test") for case in self.cases_of(subset)]

    def _donor(self, case: Case) -> Case:
        """Draw the case of another patient whose map a case gets in the shuffled control; the same one every time."""
        others = [other for other in self.cases if other.patient != case.patient]
        if not others:
            raise InputError("The shuffled control needs cases of two patients; found one (data.confidence_source).")
        seed = int.from_bytes(hashlib.blake2b(case.id.encode(), digest_size=8).digest())
        return others[int(np.random.default_rng([self.split_seed, seed]).integers(len(others)))]

    def _confidence_of(self, cases: Sequence[Case]) -> ConfidenceOf | None:
        """How cases get their maps when they are prepared."""
        if self.confidence_source == "depth":
            return DepthRamp()
        cache = self._confidence_cache()
        if cache is None:
            return None
        if self.confidence_source == "solver":
            return StoredMap(cache)
        return StoredMap(cache, {case.id: self._donor(case) for case in cases})

    def _own_confidence(self, subset: str) -> ConfidenceOf | None:
        """The image's own map beside a control's: testing sorts errors by it."""
        cache = self._confidence_cache()
        control = self.confidence_source != "solver" and subset == "test"
        return StoredMap(cache) if control and cache is not None else None

    @property
    def _tests(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == "test"

    def _confidence_cache(self) -> ConfidenceCache | None:
        if self.confidence_mode != "native" or (self.confidence_source == "depth" and not self._tests):
            return None
        return ConfidenceCache(self.cache_dir / "confidence", self.solver, self.domain, self.axes.text)

    def _compute_maps(self, cache: ConfidenceCache, missing: Sequence[tuple[Case, int]]) -> None:
        start = time.perf_counter()
        total = sum(frames for _, frames in missing)
        # The solver takes the frames of a volume side by side; single frames need their cases side by side.
        workers = os.cpu_count() if self.spatial_dims == 2 else 1
        with tqdm(total=total, desc="Confidence maps", unit="frame") as bar, ThreadPoolExecutor(workers) as pool:

            def compute(case: Case) -> None:
                arrays = read_case(replace(case, label=None), self.axes, self.classes, self.spacing_mm)
                for done in cache.compute(case.image, arrays.image, arrays.spacing):
                    bar.update(done)

            list(pool.map(compute, (case for case, _ in missing)))
        seconds = time.perf_counter() - start
        self.solve_seconds += seconds
        self.solved_frames += total
        milliseconds = 1000 * seconds / total
        rank_zero_info(f"Computed {total} confidence maps at file resolution, {milliseconds:.1f} ms a frame.")

    def _dataset(self, subset: Literal["train", "val", "test", "predict"]) -> CacheDataset:
        # Test and prediction cases are used once: nothing to cache.
        rate = self.cache_rate if subset in ("train", "val") else 0.0
        cases = self.cases_of(subset)
        if subset == "train" and not self.pairs_per_case:
            labelled = set(self.labelled_patients)
            cases = [case for case in cases if case.patient in labelled]
        prepare = PrepareCase(
            self.axes,
            self.classes,
            self.domain,
            self.spacing_mm,
            self.spatial_size,
            self.spacing,
            self._confidence_of(cases),
            self._own_confidence(subset),
            boundary=self.confidence_mode == "on_the_fly",
            keep_native=subset == "test",
        )
        return CacheDataset(cases, prepare, cache_rate=rate, num_workers=os.cpu_count(), copy_cache=False)

    def _paired(self, dataset: CacheDataset, draws: int | None = None) -> CacheDataset | PairDataset:
        return PairDataset(dataset, self.labelled_patients, draws) if self.pairs_per_case else dataset

    def _loader(self, dataset: CacheDataset | PairDataset, batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=_collate_each if shuffle and self.patch_size else default_collate,
        )

    def _thumbnail(self, case: Case) -> np.ndarray[Any, np.dtype[np.generic]]:
        """Insonified part of the case's middle frame."""
        arrays = read_case(replace(case, label=None), self.axes, self.classes, self.spacing_mm)
        image = arrays.image
        frame = image if image.ndim == 2 else image[:, :, image.shape[2] // 2]
        inside = find_domain(frame, self.domain, find_probe_fan(frame, self.domain, arrays.spacing))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        return frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else frame


def _collate_each(samples: list[Batch]) -> list[Batch]:
    """Collate every case on its own: whole images of patch training differ in size."""
    return [default_collate([sample]) for sample in samples]


def _unlabelled_cases(path: Path) -> list[Case]:
    """Cases of an image file, or of all images in a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if is_image(file))
    if not files:
        raise InputError(f"There is no image at {path} (data.predict_path); expected an image or a folder of them.")
    return [Case(stem(file), stem(file), file) for file in files]
