"""Training of the network that finds the insonified region, on synthetic screens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from cm_lightning.confidence.domain.finder import detect_region
from cm_lightning.confidence.domain.network import (
    RegionNetwork,
    read_network,
    screen_features,
    store_network,
    to_grid,
)
from cm_lightning.confidence.domain.views import overlap
from cm_lightning.data.screens import Screen, TissueTextures, draw_screen

# Screens that are kept to be used again, and how many are used for each new one.
KEPT_SCREENS = 6000
USES_PER_SCREEN = 4
# Screens for validation, and for the score.
VALIDATION_SCREENS = 384
SCORED_SCREENS = 400
# Largest learning rates of a training run that starts from random weights, and of one that continues an earlier run.
LEARNING_RATE, CONTINUED_LEARNING_RATE = 3e-3, 1.5e-3
# A region is correct if its intersection over union with the true one is at least this.
CORRECT_OVERLAP = 0.9


class ScreenDataset(IterableDataset[Tensor]):
    """Endless synthetic screens on the network's grid.

    Drawing a screen takes longer than a training step with it. Each screen is therefore used several times.

    Args:
        folders: Folders of images with tissue; see :class:`TissueTextures`.
        exclude: Regular expression for names of files that are left out.
        seed: Seed of the screens.
    """

    def __init__(self, folders: Sequence[Path], exclude: str | None, seed: int) -> None:
        self.folders = folders
        self.exclude = exclude
        self.seed = seed

    def __iter__(self) -> Iterator[Tensor]:
        """Draw screens.

        Yields:
            Features and targets as uint8, ``(FEATURES + 3, GRID, GRID)``; see :func:`screen_sample`.
        """
        worker = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        seed = (self.seed + 1000) * 1000 + (0 if worker is None else worker.id)
        rng = np.random.default_rng(seed)
        kept: list[Tensor] = []
        for screen in draw_screens(TissueTextures(self.folders, self.exclude), seed):
            sample = screen_sample(screen)
            if len(kept) < KEPT_SCREENS:
                kept.append(sample)
            else:
                kept[rng.integers(KEPT_SCREENS)] = sample
            yield sample
            for _ in range(USES_PER_SCREEN - 1):
                yield kept[rng.integers(len(kept))]


def train_region_network(
    textures: Sequence[Path],
    output: Path,
    exclude: str | None,
    steps: int,
    batch_size: int,
    seed: int,
    logs: Path,
    initial: Path | None = None,
) -> None:
    """Train the network on synthetic screens, fit its score on others, and store both.

    Args:
        textures: Folders of images with tissue; see :class:`TissueTextures`.
        output: File of the weights.
        exclude: Regular expression for names of files that are left out.
        steps: Number of training steps.
        batch_size: Number of screens per step.
        seed: Seed of the screens and of the weights.
        logs: Folder of the training's metrics.
        initial: File of weights with which the training starts; random ones by default.
    """
    pl.seed_everything(seed)
    screens = draw_screens(TissueTextures(textures, exclude), seed + 1)
    validation = [screen_sample(next(screens)) for _ in range(VALIDATION_SCREENS)]
    task = RegionTask(steps, LEARNING_RATE if initial is None else CONTINUED_LEARNING_RATE)
    if initial is not None:
        task.network.load_state_dict(read_network(initial)[0].state_dict())
    trainer = pl.Trainer(
        max_steps=steps,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        val_check_interval=min(500, steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[EMAWeightAveraging(decay=0.997)],
        logger=pl.loggers.CSVLogger(logs),
        enable_checkpointing=False,
    )
    trainer.fit(
        task,
        DataLoader(ScreenDataset(textures, exclude, seed), batch_size, num_workers=1, prefetch_factor=4),
        DataLoader(validation, batch_size),  # type: ignore[arg-type]
    )
    network = task.network.float().eval()
    store_network(output, network, score_coefficients(network, screens, SCORED_SCREENS))


def draw_screens(textures: TissueTextures, seed: int) -> Iterator[Screen]:
    """Draw random screens without end.

    Args:
        textures: Textures of the tissue.
        seed: Seed.

    Yields:
        Screens.
    """
    rng = np.random.default_rng(seed)
    while True:
        yield draw_screen(rng, textures)


def score_coefficients(network: RegionNetwork, screens: Iterator[Screen], count: int) -> list[float]:
    """Fit the probability that a region is correct (IoU of at least 0.9) by logistic regression.

    Screens on which nothing is found are skipped.

    Args:
        network: The trained network.
        screens: Screens that the network was not trained with.
        count: Number of screens.

    Returns:
        Coefficients of :attr:`cm_lightning.confidence.domain.finder.RegionDetection.score_features`.
    """
    features, is_correct = [], []
    for _ in range(count):
        screen = next(screens)
        detection = detect_region(network, screen.image[None])
        if detection is not None:
            features.append(detection.score_features)
            is_correct.append(overlap(detection.domain, screen.region.inside) >= CORRECT_OVERLAP)
    inputs, labels = np.array(features), np.where(is_correct, 1.0, -1.0)

    def loss(coefficients: np.ndarray[Any, np.dtype[np.float64]]) -> float:
        # A small penalty keeps the coefficients finite if the features separate correct and incorrect regions
        # perfectly.
        return float(np.logaddexp(0, -labels * (inputs @ coefficients)).mean() + 1e-3 * (coefficients**2).sum())

    return [float(value) for value in minimize(loss, np.zeros(inputs.shape[1])).x]


def screen_sample(screen: Screen) -> Tensor:
    """Return the features and targets of a synthetic screen.

    Args:
        screen: The screen.

    Returns:
        Features, insonified region, depth and beam, each from 0 to 255, uint8, ``(FEATURES + 3, GRID, GRID)``.
    """
    image = torch.from_numpy(screen.image.astype(np.float32))
    change = None if screen.change is None else torch.from_numpy(screen.change.astype(np.float32))
    features, placement = screen_features(image, change)
    region = screen.region
    arrays = np.stack([region.inside.astype(np.float32), region.depth, region.beam])
    targets = to_grid(torch.from_numpy(arrays), placement)
    return torch.round(torch.cat([features, targets]) * 255).to(torch.uint8)


class RegionTask(pl.LightningModule):
    """Training of :class:`RegionNetwork` with cross-entropy, Dice loss and distances of depth and beam.

    Args:
        steps: Number of training steps, after which the learning rate is 0.
        learning_rate: Largest learning rate.
    """

    def __init__(self, steps: int, learning_rate: float = LEARNING_RATE) -> None:
        super().__init__()
        self.network = RegionNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.steps = steps
        self.learning_rate = learning_rate

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """Return the loss of a batch of samples, ``(batch, FEATURES + 3, GRID, GRID)``."""
        features, targets = _split(_augment(batch.float() / 255))
        loss = region_loss(self.network(features).float(), targets, features[:, -1:])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the overlap of the region on a batch of samples."""
        features, targets = _split(batch.float() / 255)
        predicted = (self.network(features).float()[:, 0] > 0) & (features[:, -1] > 0.5)
        target = targets[:, 0] > 0.5
        overlap = (predicted & target).sum((1, 2)) / (predicted | target).sum((1, 2)).clamp(min=1)
        self.log("val/iou", overlap.mean(), prog_bar=True)
        self.log("val/iou_above_0.9", (overlap >= 0.9).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a one-cycle schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, self.steps, pct_start=0.05, div_factor=20, final_div_factor=100
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def region_loss(logits: Tensor, targets: Tensor, on_screen: Tensor) -> Tensor:
    """Return the loss of predicted regions.

    Args:
        logits: Outputs of the network, ``(batch, 3, GRID, GRID)``.
        targets: Insonified region, depth and beam from 0 to 1, ``(batch, 3, GRID, GRID)``.
        on_screen: Cells on the screen, ``(batch, 1, GRID, GRID)``.

    Returns:
        Loss, a scalar.
    """
    target, on_screen = targets[:, 0], on_screen[:, 0]
    entropy = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none") * on_screen
    axes = (1, 2)
    probability = logits[:, 0].sigmoid() * on_screen
    overlap = 2 * (probability * target).sum(axes) + 1
    dice = 1 - overlap / ((probability**2).sum(axes) + (target**2).sum(axes) + 1)
    distance = (logits[:, 1:].sigmoid() - targets[:, 1:]).abs().sum(1) * target
    area = target.sum(axes).clamp(min=1)
    return (entropy.sum(axes) / on_screen.sum(axes) + dice + 0.5 * distance.sum(axes) / area).mean()


def _split(batch: Tensor) -> tuple[Tensor, Tensor]:
    features = batch[:, :-3].contiguous(memory_format=torch.channels_last)
    return features, batch[:, -3:]


def _augment(batch: Tensor) -> Tensor:
    """Mirror a batch at random, and shift and zoom it."""
    if torch.rand(()) < 0.5:
        batch = _mirror(batch, -1)
    if torch.rand(()) < 0.12:
        batch = _mirror(batch, -2)
    if torch.rand(()) < 0.5:
        count = len(batch)
        zoom = torch.exp((torch.rand(count) - 0.6) * 0.4)
        matrix = torch.zeros(count, 2, 3)
        matrix[:, 0, 0] = torch.exp((torch.rand(count) - 0.5) * 0.2) / zoom
        matrix[:, 1, 1] = 1 / zoom
        matrix[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.16
        grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
        batch = F.grid_sample(batch, grid, padding_mode="zeros", align_corners=False)
    return batch


def _mirror(batch: Tensor, axis: int) -> Tensor:
    """Mirror a batch. Beams are counted from the left, or from the top if the probe is at the left or right."""
    batch = batch.flip(axis)
    inside, beam = batch[:, -3], batch[:, -1]
    steps = (torch.diff(beam, dim=dim) * inside.narrow(dim, 1, beam.shape[dim] - 1) for dim in (1, 2))
    down, right = (step.sum((1, 2)) for step in steps)
    along = torch.where(down.abs() > right.abs(), down, right)
    beam = torch.where(along[:, None, None] < 0, 1 - beam, beam)
    return torch.cat([batch[:, :-1], beam[:, None]], dim=1)
