"""Data module with cases, folds, confidence maps and augmentation."""

import math
import os
import time
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from monai.data import CacheDataset
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from cm_lightning.confidence import ConfidenceMapSolver, ProbeName
from cm_lightning.data.arguments import check_batch_size, check_loading, check_numbers, check_pattern, check_sizes
from cm_lightning.data.augmentation import Augmentation, Batch
from cm_lightning.data.case_sets import CaseSets, Subset, unlabelled_cases
from cm_lightning.data.cases import Case, file_digest
from cm_lightning.data.checking import check_cases
from cm_lightning.data.classes import check_classes, resolve_classes, written_values
from cm_lightning.data.confidence_maps import ConfidenceCache
from cm_lightning.data.layouts import LayoutName, default_axes
from cm_lightning.data.map_sources import ConfidenceMode, ConfidenceSource, MapSource, solve_batch
from cm_lightning.data.pairs import PairDataset
from cm_lightning.data.patches import PatchCutter
from cm_lightning.data.phantom import Phantom
from cm_lightning.data.preparation import CaseResampler, PrepareCase
from cm_lightning.data.randomness import EpochSampler, run_seed, seed_step
from cm_lightning.data.reading import CaseReader, ReadCase
from cm_lightning.data.sizes import missing_size
from cm_lightning.data.splits import Fold, SplitName
from cm_lightning.errors import InputError
from cm_lightning.interruption import leave_interruptions_to_main_process
from cm_lightning.io import Axes, FileImage

SubsetName = Subset | Literal["predict"]
# Sets of cases that a stage uses. Without a trainer, the stage is unknown and assumed to be fit.
STAGE_SUBSETS: dict[str | None, tuple[SubsetName, ...]] = {
    None: ("train", "val"),
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class UltrasoundDataModule(LightningDataModule):
    """Ultrasound images with labels, patient-wise folds and confidence maps.

    Confidence maps are computed for whole frames, before cropping and rotation. In the mode ``native``, they are
    computed once per case at file resolution and stored on disk. In the mode ``on_the_fly``, they are computed for
    every batch on its device, at the resolution of the network's input, after augmentation of the intensities and
    before geometric augmentation.

    Args:
        root: Folder of the data set.
        classes: Value of every class in the label files, in the order of the network's outputs. Several values, as in
            ``{nerve: 1, vessel: [2, 3]}``, are merged into one class, and segmentations contain the first one. The
            background, with the value 0, is the first output and is not listed. Voxels with the value of the name
            ``ignore`` are counted neither in losses nor in metrics, as in nnU-Net. None takes the classes from the
            ``dataset.json`` of the layout ``nnunet``.
        layout: Folder layout of the data set: LEG-3D-US, SegThy, nnU-Net raw, or a folder of images and masks.
        spatial_dims: Number of spatial dimensions, 2 for frames or 3 for volumes. None is that of ``axes``.
        spatial_size: Size in voxels (depth, lateral, elevation) to which whole images are resized.
        patch_size: Size in voxels of training patches, instead of ``spatial_size``. Patches are cut from images with
            their confidence maps, without resizing. Validation, test and prediction use sliding windows of this size.
        patches_per_case: Number of patches per case of a batch.
        foreground: Fraction of the patches that are centred on a class. All others are centred on background.
        spacing: Common voxel size (depth, lateral, elevation) in mm to which images are resampled for ``patch_size``
            (in pixels for images without a physical spacing).
        axes: Axes of the files in their order, for example "lateral depth elevation". A minus sign reverses an axis.
            The default depends on the layout.
        spacing_mm: Voxel size in mm in the order of the file axes, for files without spacing.
        domain: Insonified region: ``whole`` image, the rectangle of a ``linear`` probe inside a black background, the
            fan of a ``convex`` probe before a black background, ``auto`` for the region of any screen, which a network
            finds, or a file with the geometry of all images (JSON, mask or DICOM).
        patient_pattern: Regular expression for the id of a case, whose first group is the patient.
        patient_table: CSV file with the columns case and patient, instead of the pattern.
        image_folds: Whether to allow folds of images if the patients are unknown. Near-duplicate images are kept in one
            set, and all tables report this.
        split: ``study`` (three disjoint groups of three test patients), ``kfold`` or ``official``.
        fold: Number of the fold, from 0.
        n_folds: Number of folds for ``kfold``.
        split_seed: Seed of the folds.
        split_file: File of the folds, which is read if it exists and written otherwise; in ``cache_dir`` by default.
        confidence_mode: Whether confidence maps are computed at file resolution before the training (``native``), for
            every batch (``on_the_fly``), or not at all (``none``). Maps on the grid of the files and on that of the
            network are different quantities, even with the same alpha and beta.
        confidence_source: Map that is used as the confidence map: the map of the image by the ``solver``, or one of two
            controls inside the insonified region, a ramp that decreases with ``depth`` and does not depend on the
            image, or the map of a case of another patient (``shuffled``, drawn with ``split_seed``).
        solver: Parameters of the confidence maps.
        labelled_fraction: Fraction of the training patients whose labels are used, drawn with ``split_seed``. Images
            of the other patients are used without labels, and only by DeepAtlasTask, for both of its networks.
        augmentation: Augmentation of training batches.
        batch_size: Number of cases per training or validation batch; None only before a plan (``--plan true``).
        num_workers: Number of worker processes of the data loaders. Few are needed, because prepared cases are cached.
        cache_rate: Fraction of the prepared cases that are kept in memory.
        cache_dir: Folder in which confidence maps and folds are stored.
        phantom: Phantom data set that is written to ``root`` if it does not exist, including labels of simulated
            raters.
        predict_path: Image file or folder for ``predict``; the test cases of the fold by default.

    Attributes:
        pairs_per_case: If above 0, every case has a partner of another patient under the key ``partner``, and every
            training case occurs this many times per epoch with random partners. It is set from the task before
            ``setup``.

    Raises:
        InputError: Arguments are invalid or cannot be combined.
    """

    def __init__(
        self,
        root: Path,
        classes: dict[str, int | list[int]] | None = None,
        layout: LayoutName = "leg3d",
        spatial_dims: Literal[2, 3] | None = None,
        spatial_size: list[int] | None = None,
        patch_size: list[int] | None = None,
        patches_per_case: int = 2,
        foreground: float = 0.5,
        spacing: list[float] | None = None,
        axes: str | None = None,
        spacing_mm: list[float] | None = None,
        domain: ProbeName | Path = "whole",
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
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        batch_size: int | None = 1,
        num_workers: int = 0,
        cache_rate: float = 1.0,
        cache_dir: Path = Path("outputs/cache"),
        phantom: Phantom | None = None,
        predict_path: Path | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.label_classes = resolve_classes(classes, self.root, layout)
        check_classes(self.label_classes)
        self.classes = written_values(self.label_classes)
        self.spatial_size = tuple(spatial_size) if spatial_size else None
        self.patch_size = tuple(patch_size) if patch_size else None
        self.spacing = tuple(spacing) if spacing else None
        self.axes = Axes(axes or default_axes(self.root, layout, spatial_dims))
        self.spatial_dims = spatial_dims or len(self.axes.names)
        self.fold = fold
        self.confidence_mode: ConfidenceMode = confidence_mode
        self.solver = solver
        self.labelled_fraction = labelled_fraction
        self.pairs_per_case = 0
        self.augmentation = augmentation
        self.batch_size = check_batch_size(batch_size)
        self.num_workers = num_workers
        self.cache_rate = cache_rate
        self.phantom = phantom
        self.predict_path = predict_path
        self.solve_seconds = 0.0
        self.solved_frames = 0
        if spatial_size is None and patch_size is None:
            raise InputError(missing_size(self.root, layout, self.axes))
        check_sizes(self.spatial_dims, self.axes, self.spatial_size, self.patch_size, self.spacing)
        check_loading(num_workers, cache_rate)
        check_pattern(patient_pattern)
        if spacing_mm is not None and not all(math.isfinite(size) and size > 0 for size in spacing_mm):
            raise InputError(f"data.spacing_mm must be positive numbers, found {list(spacing_mm)}.")
        check_numbers(labelled_fraction, patches_per_case, foreground)
        self._cut_patches = PatchCutter(self.patch_size, patches_per_case, foreground) if self.patch_size else None
        self._reader = CaseReader(self.axes, self.label_classes, domain, tuple(spacing_mm) if spacing_mm else None)
        self.sets = CaseSets(
            self.root,
            layout,
            self._reader,
            Path(cache_dir) / "splits",
            patient_pattern,
            patient_table,
            image_folds,
            split,
            n_folds,
            split_seed,
            split_file,
        )
        cache = ConfidenceCache(Path(cache_dir) / "confidence", solver, domain, self.axes.text)
        self.maps = MapSource(confidence_mode, confidence_source, cache, split_seed)
        self._resampler = CaseResampler(
            self._reader, self.spatial_size, self.spacing, boundary=confidence_mode == "on_the_fly"
        )

    @property
    def cases(self) -> list[Case]:
        """All cases of the data set with their patients (or groups of near-duplicate images)."""
        return self.sets.cases

    @property
    def folds(self) -> list[Fold]:
        """Folds of the split, which are read from their file, or made and written to it if it does not exist.

        Raises:
            InputError: Patients are unknown, there are too few, or the file was made with other settings or patients.
        """
        return self.sets.folds

    @property
    def grouping(self) -> str:
        """Unit by which cases are assigned to folds, for tables: patients, or groups of near-duplicate images."""
        return self.sets.grouping

    @property
    def labelled_patients(self) -> list[str]:
        """Training patients of the fold whose labels are used."""
        return self.sets.labelled_patients(self.fold, self.labelled_fraction)

    @property
    def training_set(self) -> CacheDataset:
        """Prepared training cases, after ``setup("fit")``."""
        return self._train

    def test_plan(self) -> dict[str, Any]:
        """List the test cases of all folds; see :meth:`cm_lightning.data.case_sets.CaseSets.test_plan`."""
        return self.sets.test_plan(self.fold)

    def cases_of(self, subset: SubsetName) -> list[Case]:
        """List the cases of a set of the current fold.

        Args:
            subset: Name of the set.

        Returns:
            The cases. For ``predict``, these are the images at ``predict_path``, or the test cases if it is not set.

        Raises:
            InputError: The fold does not exist, or there is no image at ``predict_path``.
        """
        if subset == "predict" and self.predict_path is not None:
            return unlabelled_cases(Path(self.predict_path))
        return self.sets.subset(self.fold, "test" if subset == "predict" else subset)

    def template(self, case: Case) -> FileImage:
        """Return the image file of a case without its intensities, as a template for files of results.

        Args:
            case: The case.

        Returns:
            The image, whose array has the right shape, but is 0 everywhere. With ``spacing_mm``, the voxel size is that
            of the argument.
        """
        file = self._reader.template(case)
        spacing = self._reader.spacing_mm
        return file if spacing is None or file.spacing is not None else replace(file, spacing=spacing)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint states about the data, with which its network can be applied to other images.

        Returns:
            The ``settings`` of grid, insonified region and confidence maps, and digests of the image files of the
            training and validation cases by their id (``trained_on``), which an ensemble must not predict.
        """
        solver = {key: value for key, value in asdict(self.solver).items() if key not in ("max_batch", "backend")}
        settings = {
            "axes": self.axes.text,
            "spatial_size": self.spatial_size,
            "patch_size": self.patch_size,
            "spacing": self.spacing,
            "domain": str(self._reader.domain),
            "confidence_mode": self.confidence_mode,
            "confidence_source": self.maps.source,
            "solver": solver,
        }
        used = [*self.cases_of("train"), *self.cases_of("val")]
        return {"settings": settings, "trained_on": {case.id: file_digest(case.image) for case in used}}

    def prepare_data(self) -> None:
        """Write the phantom if it is configured, check all cases, and compute missing confidence maps.

        This runs in one process before the training starts, so that invalid files are reported early. Cases that the
        stage needs are kept in memory, or resampled immediately, so that they are read only once.
        """
        if self.phantom is not None:
            self.phantom.complete(self.root)
        needed = self._cases_to_keep()

        def keep_if_needed(read: ReadCase) -> None:
            match needed.get(read.case):
                case "train" | "val":
                    self._resampler.resample_now(read)
                case "test" | "predict":
                    self._reader.keep_in_memory(read)

        cache = self.maps.cache_to_fill(testing=self._stage == "test")
        frames, seconds = check_cases(self._cases_in_use(), self._reader, cache, keep_if_needed)
        self.solved_frames += frames
        self.solve_seconds += seconds
        self._reader.release(keep=needed)

    def setup(self, stage: str) -> None:
        """Prepare the cases of a stage.

        Args:
            stage: "fit", "validate", "test" or "predict".
        """
        match stage:
            case "fit":
                self._train = self._dataset("train")
                self._val = self._dataset("val")
                self._reader.release()  # All cases that stay in memory have been prepared.
            case "validate":
                self._val = self._dataset("val")
                self._reader.release()
            case "test":
                self._test = self._dataset("test")
            case "predict":
                self._predict = self._dataset("predict")

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled batches of the training cases."""
        return self._loader(self._paired(self._train, self.pairs_per_case), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of the validation cases in order."""
        return self._loader(self._paired(self._val), 1 if self.patch_size else self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test cases one by one, since their sizes differ."""
        return self._loader(self._paired(self._test), None)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the cases for prediction one by one."""
        return self._loader(self._predict, None)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Augment training batches, compute confidence maps on the fly, and cut patches, on the device of the batch.

        Args:
            batch: Collated batch, or a list of collated cases for training with patches.
            dataloader_idx: Index of the data loader.

        Returns:
            Batch for the task.
        """
        if "frames" in batch:
            return {**batch, "frames": batch["frames"].finished_by(self.add_maps)}
        training = self.trainer is not None and self.trainer.training
        process = self.augment if training else self.add_maps
        if "partner" in batch:
            return {**process(batch), "partner": process(batch["partner"])}
        processed = [process(part) for part in (batch if isinstance(batch, list) else [batch])]
        if not training or self._cut_patches is None:
            return processed[0]
        return default_collate([patch for part in processed for patch in self._cut_patches(part)])

    def augment(self, batch: Batch) -> Batch:
        """Augment intensities, compute confidence maps if this is done on the fly, and augment the geometry.

        Args:
            batch: Collated batch on its device.

        Returns:
            Augmented batch.
        """
        return self.augmentation.geometry(self.add_maps(self.augmentation.intensity(batch)))

    def add_maps(self, batch: Batch) -> Batch:
        """Compute the confidence maps of a batch if this is done on the fly.

        Args:
            batch: Collated batch on its device.

        Returns:
            Batch with confidence maps.
        """
        if self.confidence_mode != "on_the_fly":
            return batch
        start = time.perf_counter()
        confidence = solve_batch(self.solver, batch)
        self.solve_seconds += time.perf_counter() - start
        self.solved_frames += confidence[:, 0, 0, 0].numel()
        return {**batch, "confidence": confidence}

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Seed the random numbers of a training step: augmentation, patches and dropout.

        Args:
            batch: Collated batch.
            dataloader_idx: Index of the data loader.

        Returns:
            The batch.
        """
        if isinstance(self.trainer, Trainer) and self.trainer.training:
            step = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            seed_step(self._seed, self._epoch(), step, self.trainer.global_rank)
        return batch

    @cached_property
    def _seed(self) -> int:
        """Seed of the run."""
        return run_seed()

    def _epoch(self) -> int:
        """Return the current training epoch, also while the trainer is resuming."""
        if not isinstance(self.trainer, Trainer):
            return 0
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return int(progress.processed)

    def _finished_batches(self) -> int:
        """Return the number of batches of the current epoch that were used before the run was interrupted."""
        if not isinstance(self.trainer, Trainer) or not self.trainer.fit_loop.restarting:
            return 0
        progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return 0 if self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch else progress.ready

    @property
    def _stage(self) -> str | None:
        """Current stage; None if it is unknown."""
        return None if self.trainer is None else self.trainer.state.fn

    def _cases_in_use(self) -> list[Case]:
        """Return the cases to check: those of the stage, test cases before training, and donors of shuffled maps."""
        subsets = ("train", "val", "test") if self._stage in (None, "fit") else STAGE_SUBSETS[self._stage]
        cases = [case for subset in subsets for case in self.cases_of(subset)]
        if self.maps.source == "shuffled":
            cases += [self.maps.donor(case, self.cases) for case in cases]
        return list(dict.fromkeys(cases))

    def _cases_to_keep(self) -> dict[Case, SubsetName]:
        """Return the cases that the stage needs, with their sets, except for those that every epoch reads again."""
        kept: dict[Case, SubsetName] = {}
        for subset in STAGE_SUBSETS[self._stage]:
            cases = self._selected(subset)
            # For training and validation, these are the cases that CacheDataset keeps.
            number = int(len(cases) * self.cache_rate) if subset in ("train", "val") else len(cases)
            kept |= dict.fromkeys(cases[:number], subset)
        return kept

    def _selected(self, subset: SubsetName) -> list[Case]:
        """Return the cases of a set, without training cases that have no usable label (except for pairs)."""
        cases = self.cases_of(subset)
        if subset != "train" or self.pairs_per_case:
            return cases
        labelled = set(self.labelled_patients)
        return [case for case in cases if case.patient in labelled]

    def _dataset(self, subset: SubsetName) -> CacheDataset:
        cases, testing, native = self._selected(subset), subset == "test", subset in ("test", "predict")
        image_map_provider = (
            self.maps.image_map_provider()
            if testing and self.maps.cache_to_fill(self._stage == "test") is not None
            else None
        )
        prepare = PrepareCase(
            self._resampler,
            native,
            by_frames=native and self.patch_size is not None and self.spatial_dims == 3,
            confidence=self.maps.provider(cases, lambda: self.cases),
            image_confidence=image_map_provider,
        )
        # Test and prediction cases are used only once.
        rate = 0.0 if native else self.cache_rate
        return CacheDataset(cases, prepare, cache_rate=rate, num_workers=os.cpu_count(), copy_cache=False)

    def _paired(self, dataset: CacheDataset, draws: int | None = None) -> CacheDataset | PairDataset:
        return PairDataset(dataset, self.labelled_patients, draws, self._seed) if self.pairs_per_case else dataset

    def _loader(
        self, dataset: CacheDataset | PairDataset, batch_size: int | None, shuffle: bool = False
    ) -> DataLoader[Any]:
        """Return the loader of a dataset. Without a batch size, batches have one case, whose arrays are not copied."""
        collate = default_collate if batch_size is not None else _collate_one
        sampler: EpochSampler | None = None
        if shuffle:
            skip = self._finished_batches() * (batch_size or 1)
            trainer = self.trainer
            processes = (trainer.world_size, trainer.global_rank) if isinstance(trainer, Trainer) else (1, 0)
            is_paired = isinstance(dataset, PairDataset)
            sampler = EpochSampler(len(dataset), self._seed, self._epoch, skip, is_paired, *processes)
        return DataLoader(
            dataset,
            batch_size=batch_size or 1,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=leave_interruptions_to_main_process,
            collate_fn=_collate_each if shuffle and self.patch_size else collate,
        )


def _collate_one(samples: list[Batch]) -> Batch:
    """Add a batch dimension to a single case without copying it, since copies of a volume take gigabytes."""
    (sample,) = samples

    def collate(value: Any) -> Any:
        match value:
            case Tensor():
                return value[None]
            case dict():
                return {key: collate(entry) for key, entry in value.items()}
            case str():
                return [value]
            case _:
                return value

    return collate(sample)


def _collate_each(samples: list[Batch]) -> list[Batch]:
    """Collate every case separately, since whole images of patch training differ in size."""
    return [default_collate([sample]) for sample in samples]
