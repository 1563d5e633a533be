"""The data module: cases, folds, confidence maps and augmentation behind one configuration."""

import os
import time
from pathlib import Path
from typing import Any, Literal

from monai.data import CacheDataset
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, default_collate

from cm_lightning.confidence import ConfidenceMapSolver, ProbeName
from cm_lightning.data.arguments import check_classes, check_numbers, check_sizes
from cm_lightning.data.augmentation import Augmentation, Batch
from cm_lightning.data.case_sets import CaseSets, Subset, unlabelled_cases
from cm_lightning.data.cases import Case
from cm_lightning.data.checking import check_cases
from cm_lightning.data.confidence_maps import ConfidenceCache
from cm_lightning.data.layouts import LAYOUTS, LayoutName
from cm_lightning.data.map_sources import ConfidenceMode, ConfidenceSource, MapSource, solve_batch
from cm_lightning.data.pairs import PairDataset
from cm_lightning.data.patches import PatchCutter
from cm_lightning.data.phantom import Phantom
from cm_lightning.data.preparation import CaseResampler, PrepareCase
from cm_lightning.data.reading import CaseReader, ReadCase
from cm_lightning.data.splits import Fold, SplitName
from cm_lightning.io import Axes

Use = Subset | Literal["predict"]
# Which cases a stage uses; without a trainer it is not known, and taken for a training.
STAGE_USES: dict[str | None, tuple[Use, ...]] = {
    None: ("train", "val"),
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


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
        augmentation: Random changes of training batches.
        batch_size: Cases in a training or validation batch.
        num_workers: Loader processes. Prepared cases are cached, so that few are needed.
        cache_rate: Share of the prepared cases kept in memory.
        cache_dir: Where maps and folds are kept between runs.
        phantom: Write this phantom data set to ``root`` where there is none, and its raters' labels where these are
            missing.
        predict_path: Image file or folder that ``predict`` runs on; the fold's test cases by default.

    Attributes:
        pairs_per_case: Above 0, every case comes with a partner of another patient under the key ``partner``, and every
            training case so many times an epoch, each time with another partner; set from the task before ``setup``.

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
        domain: ProbeName = "whole",
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
        self.spatial_dims = spatial_dims
        self.spatial_size = tuple(spatial_size) if spatial_size else None
        self.patch_size = tuple(patch_size) if patch_size else None
        self.spacing = tuple(spacing) if spacing else None
        self.axes = Axes(axes or " ".join(LAYOUTS[layout].axes.split()[:3]))
        self.fold = fold
        self.confidence_mode: ConfidenceMode = confidence_mode
        self.solver = solver
        self.labelled_fraction = labelled_fraction
        self.pairs_per_case = 0
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache_rate = cache_rate
        self.phantom = phantom
        self.predict_path = predict_path
        self.solve_seconds = 0.0
        self.solved_frames = 0
        check_sizes(spatial_dims, self.axes, self.spatial_size, self.patch_size, self.spacing)
        check_classes(classes)
        check_numbers(labelled_fraction, batch_size, patches_per_case, foreground)
        self._cut_patches = PatchCutter(self.patch_size, patches_per_case, foreground) if self.patch_size else None
        self._reader = CaseReader(self.axes, classes, domain, tuple(spacing_mm) if spacing_mm else None)
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
        """All cases of the data set, each with its patient (or its group of near-duplicate images)."""
        return self.sets.cases

    @property
    def folds(self) -> list[Fold]:
        """The folds of the split, from its file where there is one."""
        return self.sets.folds

    @property
    def grouping(self) -> str:
        """What a fold is made of, for tables."""
        return self.sets.grouping

    @property
    def labelled_patients(self) -> list[str]:
        """Training patients of the fold whose labels may be used."""
        return self.sets.labelled_patients(self.fold, self.labelled_fraction)

    @property
    def training_set(self) -> CacheDataset:
        """The prepared training cases, after ``setup("fit")``."""
        return self._train

    def test_plan(self) -> dict[str, Any]:
        """Say which cases are tested in which fold; see :meth:`cm_lightning.data.case_sets.CaseSets.test_plan`."""
        return self.sets.test_plan(self.fold)

    def cases_of(self, subset: Use) -> list[Case]:
        """List the cases of one set of the chosen fold.

        Args:
            subset: Which set.

        Returns:
            Its cases; for ``predict``, those at ``predict_path`` where it is given and else those of the test.

        Raises:
            InputError: There is no such fold, or no image at ``predict_path``.
        """
        if subset == "predict" and self.predict_path is not None:
            return unlabelled_cases(Path(self.predict_path))
        return self.sets.subset(self.fold, "test" if subset == "predict" else subset)

    def prepare_data(self) -> None:
        """Write the phantom where asked to, check every case, and compute missing confidence maps.

        Runs in one process, before training starts, so that bad input is reported before time is spent. A case that the
        stage goes on to use stays in memory, or is brought to the network's grid at once, so that it is read once.
        """
        if self.phantom is not None:
            self.phantom.complete(self.root)
        users = self._users()

        def pass_on(read: ReadCase) -> None:
            match users.get(read.case):
                case "train" | "val":
                    self._resampler.resample_now(read)
                case "test" | "predict":
                    self._reader.hold(read)

        cache = self.maps.cache_to_fill(testing=self._stage == "test")
        frames, seconds = check_cases(self._cases_in_use(), self._reader, cache, pass_on)
        self.solved_frames += frames
        self.solve_seconds += seconds
        self._reader.release(keep=users)

    def setup(self, stage: str) -> None:
        """Prepare the cases of a stage.

        Args:
            stage: "fit", "validate", "test" or "predict".
        """
        match stage:
            case "fit":
                self._train = self._dataset("train")
                self._val = self._dataset("val")
                self._reader.release()  # what the training keeps is prepared by now
            case "validate":
                self._val = self._dataset("val")
                self._reader.release()
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
        change = self.augment if training else self.add_maps
        if "partner" in batch:
            return {**change(batch), "partner": change(batch["partner"])}
        changed = [change(part) for part in (batch if isinstance(batch, list) else [batch])]
        if not training or self._cut_patches is None:
            return changed[0]
        return default_collate([patch for part in changed for patch in self._cut_patches(part)])

    def augment(self, batch: Batch) -> Batch:
        """Do what happens to a training batch: intensities, then maps where they are made on the fly, then geometry.

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
        start = time.perf_counter()
        confidence = solve_batch(self.solver, batch)
        self.solve_seconds += time.perf_counter() - start
        self.solved_frames += confidence[:, 0, 0, 0].numel()
        return {**batch, "confidence": confidence}

    @property
    def _stage(self) -> str | None:
        """The stage that is about to run; None where that is not known."""
        return None if self.trainer is None else self.trainer.state.fn

    def _cases_in_use(self) -> list[Case]:
        """Cases that a stage reads, and those that give their maps to them; before a training, the tested ones, too."""
        uses = ("train", "val", "test") if self._stage in (None, "fit") else STAGE_USES[self._stage]
        cases = [case for use in uses for case in self.cases_of(use)]
        if self.maps.source == "shuffled":
            cases += [self.maps.donor(case, self.cases) for case in cases]
        return list(dict.fromkeys(cases))

    def _users(self) -> dict[Case, Use]:
        """Cases that the stage goes on to use, each with its set, but for those that are read anew in every epoch."""
        users: dict[Case, Use] = {}
        for use in STAGE_USES[self._stage]:
            cases = self._selected(use)
            # Of the training, what CacheDataset keeps.
            number = int(len(cases) * self.cache_rate) if use in ("train", "val") else len(cases)
            users |= dict.fromkeys(cases[:number], use)
        return users

    def _selected(self, use: Use) -> list[Case]:
        """Cases of a set that are used: of the training, those whose labels may be, and for pairs all."""
        cases = self.cases_of(use)
        if use != "train" or self.pairs_per_case:
            return cases
        labelled = set(self.labelled_patients)
        return [case for case in cases if case.patient in labelled]

    def _dataset(self, use: Use) -> CacheDataset:
        cases, testing = self._selected(use), use == "test"
        own = (
            self.maps.own_provider() if testing and self.maps.cache_to_fill(self._stage == "test") is not None else None
        )
        prepare = PrepareCase(self._resampler, testing, self.maps.provider(cases, lambda: self.cases), own)
        # Test and prediction cases are used once: nothing to cache.
        rate = self.cache_rate if use in ("train", "val") else 0.0
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


def _collate_each(samples: list[Batch]) -> list[Batch]:
    """Collate every case on its own: whole images of patch training differ in size."""
    return [default_collate([sample]) for sample in samples]
