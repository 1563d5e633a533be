"""Networks for the boundaries of real muscles, whose spread is compared with that of three raters.

    python benchmarks/raters_muscle_networks.py TIMTRACK DLTRACK FOLDER --seeds 0 1 2 3 4

Networks are trained on DLTRACK (frames with masks of the aponeuroses) and applied to TIMTRACK (frames with the rows of
three raters). A U-Net predicts, in every column, the probability of every row to contain the superficial and the deep
boundary of the muscle. Its input is the image alone, or the image with a second channel: its confidence map, a ramp
over depth, or the map of another image. FOLDER gets a file per setting and seed. Those that exist are kept, so that the
command continues where it was interrupted. ``benchmarks/raters_muscle.py`` reads them.
"""

import argparse
import time
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from muscle_frames import BOUNDARIES, Array, MuscleFrame, boundary_rows, depth_extents, read_dltrack, read_timtrack
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.data.rater_rows import read_rater_rows
from cm_lightning.data.resampling import resample
from cm_lightning.models import create_network, dropout_layers
from cm_lightning.writing import replaced

Setting = Literal["1ch", "2ch", "ramp", "other"]

# Rows and columns of the networks' grid.
SIZE = (192, 64)
# SD of the target along depth, in rows of the grid.
WIDTH = 1.5
BATCH = 8
LEARNING_RATE = 3e-3
# Samples of MC dropout.
SAMPLES = 20
# Smallest fraction of columns with two aponeuroses in a frame that is used for training.
VALID_COLUMNS = 0.5
# Distance from the median of the raters within which a network that is told the line looks for it, in rows of the grid.
TOLD = 12
# Columns of the grid at the left edge, where raters probably measured.
EDGE = 3


class Prepared(NamedTuple):
    """Frames on the grid of the networks.

    Attributes:
        images: Images, maps and maps of another group, ``(frames, 3, depth, lateral)``.
        targets: Distributions of the boundaries over the rows, ``(frames, 2, depth, lateral)``; empty without masks.
        groups: Group of near-duplicates, or subject, of every frame.
        names: Names of the frames.
    """

    images: Tensor
    targets: Tensor
    groups: list[str]
    names: list[str]


def prepare(frames: list[MuscleFrame], rows: list[Array] | None) -> Prepared:
    """Resample frames and maps, and draw for every frame a map of another group.

    Args:
        frames: Frames.
        rows: Rows of the boundaries in the pixels of the frames, ``(2, lateral)`` each; None if unknown.

    Returns:
        Frames on the grid of the networks.
    """
    generator = np.random.default_rng(0)
    maps = [resample(frame.confidence, SIZE, "linear")[0] for frame in frames]
    images, targets = [], []
    for frame, own in zip(frames, maps, strict=True):
        others = [index for index, other in enumerate(frames) if other.subject != frame.subject]
        images.append(torch.stack([resample(frame.image, SIZE, "linear")[0], own, maps[generator.choice(others)]]))
    for frame, row in zip(frames, rows or [], strict=rows is not None):
        columns = ((np.arange(SIZE[1]) + 0.5) * frame.image.shape[1] / SIZE[1]).astype(int)
        centres = torch.from_numpy((row[:, columns] + 0.5) * SIZE[0] / frame.image.shape[0] - 0.5).float()
        grid = torch.arange(SIZE[0])[None, :, None]
        density = torch.exp(-0.5 * ((grid - centres[:, None]) / WIDTH) ** 2)
        targets.append(torch.nan_to_num(density / density.sum(dim=1, keepdim=True)))
    return Prepared(
        torch.stack(images),
        torch.stack(targets) if targets else torch.empty(0),
        [frame.subject for frame in frames],
        [frame.name for frame in frames],
    )


def inputs_of(images: Tensor, setting: Setting) -> Tensor:
    """Return the input of a network, ``(B, channels, depth, lateral)``, of images with their maps."""
    image = images[:, :1]
    match setting:
        case "1ch":
            return image
        case "2ch":
            return images[:, :2]
        case "ramp":
            ramp = torch.linspace(1, 0, image.shape[2])[None, None, :, None]
            return torch.cat([image, ramp.expand_as(image)], dim=1)
        case "other":
            return images[:, [0, 2]]


def augment(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip, scale and shift images, channels and targets together, and change the gain and contrast of the images."""
    number = len(inputs)
    uniform = torch.rand(number, 6, generator=generator)
    matrices = torch.zeros(number, 2, 3)
    matrices[:, 0, 0] = (0.75 + 0.35 * uniform[:, 0]) * torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
    # The upper 40 to 110 % of the depth fill the frame, since muscles of the test frames extend deeper.
    shown = 0.4 * 2.75 ** uniform[:, 2]
    matrices[:, 1, 1] = shown
    matrices[:, 1, 2] = shown - 1 + 0.05 * (uniform[:, 3] - 0.5)
    grid = F.affine_grid(matrices, [number, 1, *inputs.shape[2:]], align_corners=False)
    moved = F.grid_sample(torch.cat([inputs, targets], dim=1), grid, padding_mode="zeros", align_corners=False)
    moved_inputs, moved_targets = moved[:, : inputs.shape[1]].clone(), moved[:, inputs.shape[1] :]
    gamma, gain = 0.6 + 0.9 * uniform[:, 4], 0.7 + 0.9 * uniform[:, 5]
    image = moved_inputs[:, 0].clamp(min=1e-6) ** gamma[:, None, None] * gain[:, None, None]
    moved_inputs[:, 0] = image + 0.02 * torch.randn(image.shape, generator=generator)
    return moved_inputs, moved_targets


def boundary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy over the rows, averaged over boundaries and columns with a target."""
    mass = targets.sum(dim=2)
    valid = mass > 0.5 * mass.amax().clamp(min=1e-6)
    cross_entropy = -(targets * F.log_softmax(logits, dim=2)).sum(dim=2) / mass.clamp(min=1e-6)
    return cross_entropy[valid].mean()


def rows_of(logits: Tensor, near: Tensor | None = None) -> Tensor:
    """Return the expected rows of both boundaries.

    The expectation is over the rows around the most probable one, so that a second candidate does not pull it away.

    Args:
        logits: Logits of the rows, ``(B, 2, depth, lateral)``.
        near: Rows around which the boundaries are looked for, ``(B, 2)``; anywhere by default.

    Returns:
        Rows of the grid, ``(B, 2, lateral)``.
    """
    grid = torch.arange(logits.shape[2], dtype=logits.dtype)[None, None, :, None]
    if near is not None:
        logits = logits.masked_fill((grid - near[:, :, None, None]).abs() > TOLD, -torch.inf)
    probability = F.softmax(logits, dim=2)
    peak = probability.argmax(dim=2, keepdim=True)
    around = probability * ((grid - peak).abs() <= 4 * WIDTH)
    return (around * grid).sum(dim=2) / around.sum(dim=2)


def split(groups: list[str]) -> tuple[list[int], list[int]]:
    """Split frames into 80 % for training and 20 % for validation, near-duplicates together."""
    names = list(dict.fromkeys(groups))
    order = np.random.default_rng(0).permutation(len(names))
    held_out = {names[index] for index in order[: len(names) // 5]}
    training = [index for index, group in enumerate(groups) if group not in held_out]
    return training, [index for index, group in enumerate(groups) if group in held_out]


def train(data: Prepared, setting: Setting, seed: int, epochs: int) -> tuple[nn.Module, Array]:
    """Train a network with a learning rate that falls to 0 (cosine).

    Returns:
        The network, and per epoch the loss of training and validation and the median validation error of both
        boundaries in rows of the grid, ``(epochs, 4)``.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = inputs_of(data.images, setting)
    network = create_network(
        "UNet",
        2,
        inputs.shape[1],
        2,
        SIZE,
        channels=(8, 16, 32, 48, 64),
        strides=(2, 2, 2, 2),
        num_res_units=0,
        dropout=0.1,
        norm="batch",
    )
    training, validation = split(data.groups)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    steps = epochs * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    curve = []
    for _ in range(epochs):
        network.train()
        losses = []
        order = torch.randperm(len(training), generator=generator)
        for batch in order.split(BATCH):
            indices = torch.tensor(training)[batch]
            images, targets = augment(inputs[indices], data.targets[indices], generator)
            loss = boundary_loss(network(images), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        network.eval()
        with torch.no_grad():
            logits = torch.cat([network(part) for part in inputs[validation].split(BATCH)])
        targets = data.targets[validation]
        truth, valid = rows_of(torch.log(targets.clamp(min=1e-12))), targets.sum(dim=2) > 0.5
        error = (rows_of(logits) - truth).abs()
        medians = [float(error[:, part][valid[:, part]].median()) for part in range(2)]
        curve.append([float(np.mean(losses)), float(boundary_loss(logits, targets)), *medians])
    return network, np.array(curve)


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, near: Tensor, setting: Setting, seed: int) -> dict[str, Array]:
    """Predict the rows of all frames: once, by samples of MC dropout, and by test-time augmentation.

    Args:
        network: Network.
        images: Images with their maps, ``(frames, 3, depth, lateral)``.
        near: Median rows of the raters on the grid, ``(frames, 2)``.
        setting: Input of the network.
        seed: Seed of dropout.

    Returns:
        Rows of the grid, ``(frames, 2, lateral)`` for ``rows``, ``(samples, frames, 2, lateral)`` for ``dropout`` and
        ``augmented``. The same with ``told_`` before the name at the left edge, near the median of the raters: the
        network is told which line is meant, as the raters were, but not exactly where it is.
    """
    torch.manual_seed(seed)
    network.eval()
    inputs = inputs_of(images, setting)

    def apply(batch: Tensor, flipped: bool = False) -> tuple[Tensor, Tensor]:
        rows, told = [], []
        for part, part_near in zip(batch.split(16), near.split(16), strict=True):
            logits = network(part.flip(-1)).flip(-1) if flipped else network(part)
            rows.append(rows_of(logits))
            told.append(rows_of(logits[..., :EDGE], part_near))
        return torch.cat(rows), torch.cat(told)

    augmented = []
    for flipped in (False, True):
        for gamma, gain in ((1.0, 1.0), (0.75, 1.0), (1.3, 1.0), (1.0, 0.8), (1.0, 1.2)):
            changed = inputs.clone()
            changed[:, 0] = changed[:, 0].clamp(min=1e-6) ** gamma * gain
            augmented.append(apply(changed, flipped))
    single = [apply(inputs)]
    for layer in dropout_layers(network):
        layer.train()
    samples = [apply(inputs) for _ in range(SAMPLES)]
    results = {}
    for name, pairs in (("rows", single), ("dropout", samples), ("augmented", augmented)):
        for prefix, parts in zip(("", "told_"), zip(*pairs, strict=True), strict=True):
            stacked = torch.stack(parts).numpy()
            results[prefix + name] = stacked[0] if name == "rows" else stacked
    return results


def median_rows(timtrack: Path, names: list[str]) -> Tensor:
    """Return the median rows of the raters on the grid, ``(frames, 2)``."""
    rows = read_rater_rows(timtrack / "raters.csv")
    extents = depth_extents(timtrack, rows)
    medians = rows.groupby(["case", "boundary"])["row"].median().unstack().loc[names, list(BOUNDARIES)].to_numpy()
    tops, depths = np.array([extents[name] for name in names]).T[..., None]
    return torch.from_numpy((medians - tops + 0.5) * SIZE[0] / depths - 0.5).float()


def prepared(timtrack: Path, dltrack: Path, folder: Path) -> tuple[Prepared, Prepared]:
    """Return the frames for training and for the test, which are stored in the folder."""
    stored = folder / "frames.pt"
    if not stored.is_file():
        labelled = [(frame, boundary_rows(mask)) for frame, mask in read_dltrack(dltrack)]
        used = [(frame, rows) for frame, rows in labelled if np.isfinite(rows).all(axis=0).mean() >= VALID_COLUMNS]
        training = prepare([frame for frame, _ in used], [rows for _, rows in used])
        test = prepare(read_timtrack(timtrack), None)
        with replaced(stored) as partial:
            torch.save([tuple(training), tuple(test)], partial)
    first, second = torch.load(stored)
    return Prepared(*first), Prepared(*second)


def main() -> None:
    """Train and apply all networks that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("timtrack", type=Path)
    parser.add_argument("dltrack", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    training, test = prepared(arguments.timtrack, arguments.dltrack, arguments.folder)
    near = median_rows(arguments.timtrack, test.names)
    print(f"{len(training.names)} frames in {len(set(training.groups))} groups for training and validation")
    for seed in arguments.seeds:
        for setting in get_args(Setting):
            path = arguments.folder / f"{setting}_seed{seed}.npz"
            if path.is_file():
                continue
            start = time.perf_counter()
            network, curve = train(training, setting, seed, arguments.epochs)
            predictions = predict(network, test.images, near, setting, seed)
            torch.save(network.state_dict(), path.with_suffix(".pt"))
            with replaced(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, curve=curve, names=np.array(test.names), **predictions)
            errors = ", ".join(f"{value:.2f}" for value in curve[-1, 2:])
            seconds = time.perf_counter() - start
            print(f"{path.stem}: loss {curve[-1, 1]:.3f}, errors {errors} rows, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
