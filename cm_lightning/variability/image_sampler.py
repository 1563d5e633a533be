"""MC-dropout samples of single images, stored for the comparison with labels of raters."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from cm_lightning.data import UltrasoundDataModule
from cm_lightning.data.augmentation import Augmentation, Batch
from cm_lightning.data.ignored import is_known, known_only
from cm_lightning.drawing import frame_spacing
from cm_lightning.errors import InputError
from cm_lightning.tasks import SegmentationTask
from cm_lightning.tasks.native import image_confidence, resize_frame
from cm_lightning.uncertainty import MCDropout, entropy
from cm_lightning.writing import replaced

# Number of versions in test-time augmentation.
AUGMENTED_VERSIONS = 20
# Numbers of samples after which the entropy is compared with the final one.
CONVERGENCE = (1, 2, 5, 10, 20, 50, 100, 200)
# Intensity augmentation of test-time augmentation, if training used none.
DEFAULT_AUGMENTATION = Augmentation(flip=0, rotation=0, scaling=0, elastic=0)


@dataclass(frozen=True)
class SampledImage:
    """One frame of a test case with the MC-dropout samples of a network.

    Attributes:
        case: Id of the case.
        patient: Patient of the case.
        frame: Index of the frame in the volume; 0 for an image.
        unit: Unit of the spacing.
        spacing: Pixel size in depth and lateral direction.
        image: Intensities in [0, 1], ``(depth, lateral)``.
        domain: Insonified pixels, without those that the label file ignores, ``(depth, lateral)``.
        label: Class indices of the label file, ``(depth, lateral)``.
        confidence: Confidence map of the image, also for networks with a control channel, ``(depth, lateral)``; NaN
            without one.
        samples: Class indices of each sample, ``(T, depth, lateral)``.
        mean: Mean class probabilities of the samples, ``(C, depth, lateral)``.
        expected_entropy: Mean entropy of the samples in nats, ``(depth, lateral)``.
        single: Class probabilities without dropout, ``(C, depth, lateral)``.
        augmented: Mean class probabilities of test-time augmentation, ``(C, depth, lateral)``.
        convergence: Mean absolute difference, over insonified pixels, between the entropy after each number of samples
            in :data:`CONVERGENCE` and that after all samples, in nats; NaN for numbers above T.
    """

    case: str
    patient: str
    frame: int
    unit: str
    spacing: tuple[float, float]
    image: NDArray[np.float32]
    domain: NDArray[np.bool_]
    label: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    samples: NDArray[np.uint8]
    mean: NDArray[np.float32]
    expected_entropy: NDArray[np.float32]
    single: NDArray[np.float32]
    augmented: NDArray[np.float32]
    convergence: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write the samples to a NumPy file, which is renamed once it is complete."""
        with replaced(path) as partial:
            np.savez_compressed(partial, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            InputError: The file is damaged.
        """
        try:
            with np.load(path) as stored:
                values: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path} cannot be read: {error}. Delete it to sample the image again.") from error
        values["spacing"] = tuple(values["spacing"].tolist())
        return cls(**{name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()})


class ImageSampler(Callback):
    """Samples frames of every tested case with MC dropout and test-time augmentation, and stores the samples.

    Frames are distributed evenly over the labelled frames of a volume. Test-time augmentation changes intensities as in
    training (gain, time gain, speckle), and flips images if training did.

    Args:
        folder: Folder of the files ``<case>_frame<k>.npz``.
        settings: Settings of MC dropout.
        frames: Number of frames per volume.
        cases: Ids of the cases to sample, each with the frames to select from, or None for all labelled frames. All
            cases by default.
    """

    def __init__(
        self,
        folder: Path,
        settings: MCDropout,
        frames: int = 3,
        cases: Mapping[str, Sequence[int] | None] | None = None,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.frames = frames
        self.cases = cases

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Sample one case."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, SegmentationTask)
        assert isinstance(data, UltrasoundDataModule)
        if "frames" in batch:
            batch = {**batch, **batch["frames"].batch(None, pl_module.device)}
        case = batch["case"][0]
        (label,) = known_only(batch["native_label"][0, 0])
        shape = [int(size) for size in batch["native_shape"][0]]
        if self.cases is not None and case not in self.cases:
            return
        frames = choose_frames(label, self.frames, None if self.cases is None else self.cases[case])
        if not frames:
            return
        running = [_RunningFrame(shape, frame, self.settings.samples) for frame in frames]

        def add_sample(sample: Tensor) -> None:
            for accumulator in running:
                accumulator.add(sample)

        pl_module.sample(batch, self.settings, add_sample)
        single = pl_module.infer(batch).float().softmax(dim=1)[0]
        augmented = self._augmented(pl_module, data, batch)
        for frame, accumulator in zip(frames, running, strict=True):

            def resized(value: Tensor, frame: int = frame) -> NDArray[np.float32]:
                return resize_frame(value.float(), shape, frame).cpu().numpy()

            def selected(native: Tensor, frame: int = frame) -> NDArray[Any]:
                return (native if native.ndim == 2 else native[..., frame]).cpu().numpy()

            inside = selected(batch["native_domain"][0, 0] & is_known(batch["native_label"][0, 0]))
            confidence = image_confidence(batch, frame)
            sampled = SampledImage(
                case=case,
                patient=batch["patient"][0],
                frame=frame,
                unit=batch["unit"][0],
                spacing=frame_spacing(batch["native_spacing"][0]),
                image=resized(batch["image"][0])[0],
                domain=inside,
                label=selected(label),
                confidence=np.full(inside.shape, np.nan, np.float32)
                if confidence is None
                else confidence.cpu().numpy(),
                samples=np.stack(accumulator.samples),
                mean=accumulator.mean.cpu().numpy(),
                expected_entropy=(accumulator.entropies / len(accumulator.samples)).cpu().numpy(),
                single=resized(single),
                augmented=resized(augmented),
                convergence=accumulator.convergence(inside),
            )
            sampled.save(self.folder / f"{case}_frame{frame}.npz")

    def _augmented(self, task: SegmentationTask, data: UltrasoundDataModule, batch: Batch) -> Tensor:
        """Average the class probabilities of augmented versions of a case, ``(C, ...)``."""
        training = data.augmentation
        has_intensity = training.gain or training.time_gain or training.speckle
        augmentation = training if has_intensity else DEFAULT_AUGMENTATION
        flips = bool(training.flip)
        total: Tensor | None = None
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            for number in range(AUGMENTED_VERSIONS):
                transform = _flip if flips and number % 2 else _identity
                augmented = transform(data.add_maps(augmentation.intensity(batch)))
                # Flipping is its own inverse.
                probabilities = transform({"image": task.infer(augmented).float().softmax(dim=1)})["image"][0]
                total = probabilities if total is None else total + probabilities
        assert total is not None
        return total / AUGMENTED_VERSIONS


class _RunningFrame:
    """Accumulates the samples of one frame at file resolution."""

    def __init__(self, shape: Sequence[int], frame: int, samples: int) -> None:
        self.shape, self.frame = shape, frame
        self.samples: list[NDArray[np.uint8]] = []
        self.total = torch.zeros(())
        self.entropies = torch.zeros(())
        self._steps: dict[int, Tensor] = {}
        self._compared_numbers = {number for number in CONVERGENCE if number <= samples}

    @property
    def mean(self) -> Tensor:
        return self.total / len(self.samples)

    def add(self, sample: Tensor) -> None:
        probabilities = resize_frame(sample, self.shape, self.frame)
        self.samples.append(probabilities.max(dim=0).indices.to(torch.uint8).cpu().numpy())
        self.total = self.total.to(probabilities.device) + probabilities
        self.entropies = self.entropies.to(probabilities.device) + entropy(probabilities, dim=0)
        if len(self.samples) in self._compared_numbers:
            self._steps[len(self.samples)] = entropy(self.mean, dim=0)

    def convergence(self, domain: NDArray[np.bool_]) -> NDArray[np.float64]:
        final, inside = entropy(self.mean, dim=0), torch.from_numpy(domain)
        differences = [
            (self._steps[number] - final).abs().cpu()[inside].mean().item() if number in self._steps else np.nan
            for number in CONVERGENCE
        ]
        return np.array(differences)


def choose_frames(label: Tensor, number: int, candidates: Sequence[int] | None = None) -> list[int]:
    """Select frames that are distributed evenly over the labelled frames of a volume.

    Args:
        label: Class indices, ``(depth, lateral[, elevation])``.
        number: Largest number of frames.
        candidates: Frames to select from instead of the labelled ones.

    Returns:
        Indices along elevation; ``[0]`` for a labelled image, and an empty list if nothing is labelled.
    """
    if label.ndim == 2:
        return [0] if label.any() else []
    labelled = (label > 0).any(dim=0).any(dim=0).nonzero()[:, 0].tolist() if candidates is None else list(candidates)
    positions = [int((step + 0.5) / number * len(labelled)) for step in range(number)]
    return [labelled[position] for position in dict.fromkeys(positions)] if labelled else []


def _identity(batch: Batch) -> Batch:
    return batch


def _flip(batch: Batch) -> Batch:
    """Flip image, maps and masks laterally."""
    mirrored = ("image", "confidence", "domain", "source", "sink")
    return {key: value.flip(3) if key in mirrored else value for key, value in batch.items()}
