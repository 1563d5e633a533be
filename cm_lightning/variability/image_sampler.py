"""Samples of single images, kept for a comparison with the labels that raters gave the same images."""

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
from cm_lightning.drawing import frame_spacing
from cm_lightning.errors import InputError
from cm_lightning.tasks import SegmentationTask
from cm_lightning.tasks.native import own_confidence, resize_frame
from cm_lightning.uncertainty import MCDropout, entropy

AUGMENTED_VERSIONS = 20
CONVERGENCE = (1, 2, 5, 10, 20, 50, 100, 200)  # numbers of samples after which the entropy is looked at
KNOBS = Augmentation(flip=0, rotation=0, scaling=0, elastic=0)  # where training did not turn any


@dataclass(frozen=True)
class SampledImage:
    """One frame of a test case, and what a network says of it.

    Attributes:
        case: The case's id.
        patient: Whose it is.
        frame: Which frame of the volume; 0 of an image.
        unit: Of the spacing.
        spacing: Pixel size in depth and lateral.
        image: ``(depth, lateral)`` in [0, 1].
        domain: Insonified pixels.
        label: Class indices of the label file.
        confidence: The map of the image itself, also where the network saw a control; NaN where there is none.
        samples: Class indices of every sample with dropout, ``(T, depth, lateral)``.
        mean: Mean of the samples' class probabilities, ``(C, depth, lateral)``.
        expected_entropy: Mean of the samples' entropies in nats.
        single: Class probabilities of one pass without dropout, ``(C, depth, lateral)``.
        augmented: Mean of the class probabilities over test-time augmentation, ``(C, depth, lateral)``.
        convergence: Mean absolute difference, over insonified pixels, of the entropy after each number of
            :data:`CONVERGENCE` samples to that after all; NaN for numbers above T.
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
        """Write all to a NumPy file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **{field.name: getattr(self, field.name) for field in fields(self)})
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: The file is damaged.
        """
        try:
            with np.load(path) as stored:
                values: dict[str, Any] = {field.name: stored[field.name] for field in fields(cls)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path} cannot be read: {error}. Delete it, and it is sampled again.") from error
        values["spacing"] = tuple(values["spacing"].tolist())
        return cls(**{name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()})


class ImageSampler(Callback):
    """Sample frames of every tested case with dropout, and by test-time augmentation, and keep what they say.

    Frames are spread evenly over those of a volume that have a label; they do not depend on what any network or rater
    says. Test-time augmentation turns the knobs of training (gain, time gain, speckle), and flips where training did.

    Args:
        folder: Where to: ``<case>_frame<k>.npz``.
        settings: How networks are sampled.
        frames: Frames of a volume.
        cases: The cases to sample, by id, each with the frames to choose from, or None for all of it; all cases by
            default.
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
        case = batch["case"][0]
        label = batch["native_label"][0, 0]
        shape = [int(n) for n in batch["native_shape"][0]]
        if self.cases is not None and case not in self.cases:
            return
        frames = choose_frames(label, self.frames, None if self.cases is None else self.cases[case])
        if not frames:
            return
        running = [_RunningFrame(shape, frame, self.settings.samples) for frame in frames]

        def show(sample: Tensor) -> None:
            for one in running:
                one.add(sample)

        pl_module.sample(batch, self.settings, show)
        single = pl_module.infer(batch).float().softmax(dim=1)[0]
        augmented = self._augmented(pl_module, data, batch)
        own = own_confidence(batch)
        for frame, one in zip(frames, running, strict=True):

            def at(value: Tensor, frame: int = frame) -> NDArray[np.float32]:
                return resize_frame(value.float(), shape, frame).cpu().numpy()

            def cut(native: Tensor, frame: int = frame) -> NDArray[Any]:
                return (native if native.ndim == 2 else native[..., frame]).cpu().numpy()

            domain = at(batch["domain"][0])[0] > 0.5
            sampled = SampledImage(
                case=case,
                patient=batch["patient"][0],
                frame=frame,
                unit=batch["unit"][0],
                spacing=frame_spacing(batch["native_spacing"][0]),
                image=at(batch["image"][0])[0],
                domain=domain,
                label=cut(label),
                confidence=np.full(domain.shape, np.nan, np.float32) if own is None else cut(own),
                samples=np.stack(one.samples),
                mean=one.mean.cpu().numpy(),
                expected_entropy=(one.entropies / len(one.samples)).cpu().numpy(),
                single=at(single),
                augmented=at(augmented),
                convergence=one.convergence(domain),
            )
            sampled.save(self.folder / f"{case}_frame{frame}.npz")

    def _augmented(self, task: SegmentationTask, data: UltrasoundDataModule, batch: Batch) -> Tensor:
        """Mean class probabilities over augmented versions of a case, ``(C, ...)``."""
        turned = data.augmentation
        knobs = turned if turned.gain or turned.time_gain or turned.speckle else KNOBS
        flips = bool(turned.flip)
        total: Tensor | None = None
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            for number in range(AUGMENTED_VERSIONS):
                change = _flip if flips and number % 2 else _leave
                changed = change(data.add_maps(knobs.intensity(batch)))
                found = change({"image": task.infer(changed).float().softmax(dim=1)})["image"][0]
                total = found if total is None else total + found
        assert total is not None
        return total / AUGMENTED_VERSIONS


class _RunningFrame:
    """Sums over the samples of one frame at file resolution."""

    def __init__(self, shape: Sequence[int], frame: int, samples: int) -> None:
        self.shape, self.frame = shape, frame
        self.samples: list[NDArray[np.uint8]] = []
        self.total = torch.zeros(())
        self.entropies = torch.zeros(())
        self._steps: dict[int, Tensor] = {}
        self._looked_at = {number for number in CONVERGENCE if number <= samples}

    @property
    def mean(self) -> Tensor:
        return self.total / len(self.samples)

    def add(self, sample: Tensor) -> None:
        probabilities = resize_frame(sample, self.shape, self.frame)
        self.samples.append(probabilities.max(dim=0).indices.to(torch.uint8).cpu().numpy())
        self.total = self.total.to(probabilities.device) + probabilities
        self.entropies = self.entropies.to(probabilities.device) + entropy(probabilities, dim=0)
        if len(self.samples) in self._looked_at:
            self._steps[len(self.samples)] = entropy(self.mean, dim=0)

    def convergence(self, domain: NDArray[np.bool_]) -> NDArray[np.float64]:
        last, inside = entropy(self.mean, dim=0), torch.from_numpy(domain)
        found = [
            (self._steps[number] - last).abs().cpu()[inside].mean().item() if number in self._steps else np.nan
            for number in CONVERGENCE
        ]
        return np.array(found)


def choose_frames(label: Tensor, number: int, among: Sequence[int] | None = None) -> list[int]:
    """Spread frames evenly over those of a volume that have a label.

    Args:
        label: Class indices, ``(depth, lateral[, elevation])``.
        number: How many, at most.
        among: Frames to choose from in place of the labelled ones.

    Returns:
        Positions along elevation; ``[0]`` for an image, none where nothing is labelled.
    """
    if label.ndim == 2:
        return [0] if label.any() else []
    labelled = (label > 0).any(dim=0).any(dim=0).nonzero()[:, 0].tolist() if among is None else list(among)
    places = [int((step + 0.5) / number * len(labelled)) for step in range(number)]
    return [labelled[place] for place in dict.fromkeys(places)] if labelled else []


def _leave(batch: Batch) -> Batch:
    return batch


def _flip(batch: Batch) -> Batch:
    """Mirror all that has a lateral axis."""
    mirrored = ("image", "confidence", "domain", "source", "sink")
    return {key: value.flip(3) if key in mirrored else value for key, value in batch.items()}
