"""Network that finds the insonified region of a screen, and the features that it sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cm_lightning.writing import replaced

# Side length in cells of the square grid of the network, into which the longer side of a screen is resampled.
GRID = 192
# Maximum side length in pixels of the image from which features are computed. Larger images are averaged first.
FEATURE_SIDE = 768
FEATURES = 7
WEIGHTS_FILE = "region_network.pt"


@dataclass(frozen=True)
class Placement:
    """Cells of the network's grid that a screen covers.

    Attributes:
        row: First row.
        column: First column.
        rows: Number of rows.
        columns: Number of columns.
    """

    row: int
    column: int
    rows: int
    columns: int

    def cut(self, grid: Tensor) -> Tensor:
        """Return the part of a grid that the screen covers, ``(..., rows, columns)``."""
        return grid[..., self.row : self.row + self.rows, self.column : self.column + self.columns]


def place(shape: tuple[int, int]) -> Placement:
    """Return where a screen of a shape lies in the network's grid: centred, with its longer side filling the grid."""
    rows, columns = (max(8, round(side * GRID / max(shape))) for side in shape)
    return Placement((GRID - rows) // 2, (GRID - columns) // 2, rows, columns)


def to_grid(array: Tensor, placement: Placement) -> Tensor:
    """Resample arrays to the network's grid.

    Args:
        array: Arrays of the size of the screen, ``(channels, rows, columns)``.
        placement: Cells that the screen covers.

    Returns:
        Arrays on the grid, 0 outside the screen, ``(channels, GRID, GRID)``.
    """
    cells = F.interpolate(array[None], (placement.rows, placement.columns), mode="area")[0]
    below = GRID - placement.row - placement.rows
    right = GRID - placement.column - placement.columns
    return F.pad(cells, (placement.column, right, placement.row, below))


def screen_features(image: Tensor, change: Tensor | None = None) -> tuple[Tensor, Placement]:
    """Compute the features of a screen on the network's grid.

    Args:
        image: Grey levels from 0 to 255, ``(rows, columns)``; the maximum of the frames of a sequence.
        change: Standard deviation of the grey levels over a sequence, ``(rows, columns)``; None for a single frame.

    Returns:
        Features from 0 to 1, ``(FEATURES, GRID, GRID)``, and the cells that the screen covers.
    """
    placement = place((image.shape[0], image.shape[1]))
    return to_grid(pixel_features(image, change)[0], placement), placement


def pixel_features(image: Tensor, change: Tensor | None = None) -> tuple[Tensor, int]:
    """Compute the features of the pixels of a screen, which may be reduced in size.

    These are the grey level on a logarithmic and on a linear scale, the local standard deviation, which is low in flat
    surroundings, whether pixels equal their neighbours, as in synthetic surroundings, the change over time, whether
    there is a sequence, and 1.

    Args:
        image: Grey levels from 0 to 255, ``(rows, columns)``; the maximum of the frames of a sequence.
        change: Standard deviation of the grey levels over a sequence, ``(rows, columns)``; None for a single frame.

    Returns:
        Features from 0 to 1, ``(FEATURES, rows', columns')``, and the side length in pixels of a reduced pixel.
    """
    factor = -(-max(image.shape) // FEATURE_SIDE)
    changes = torch.zeros(()) if change is None else _reduce(change, factor)
    grey = torch.round(_reduce(image, factor))
    mean, square = _local_mean(torch.stack([grey, grey**2]))
    equal = torch.ones_like(grey)
    equal[:, 1:] *= grey[:, 1:] == grey[:, :-1]
    equal[1:] *= grey[1:] == grey[:-1]
    features = torch.empty(FEATURES, *grey.shape)
    features[:2] = flat_features(grey)
    features[2] = torch.log1p(torch.sqrt((square - mean**2).clamp(min=0))) / math.log(80)
    features[3] = equal
    features[4] = torch.log1p(changes) / math.log(40)
    features[5] = float(change is not None)
    features[6] = 1
    return features.clamp_(0, 1), factor


def flat_features(grey: Tensor) -> Tensor:
    """Return the features of a grey level alone, on a logarithmic and on a linear scale, ``(2, ...)``."""
    return torch.stack([torch.log1p(grey / 3) / math.log1p(85), grey / 255])


def _reduce(layer: Tensor, factor: int) -> Tensor:
    return F.avg_pool2d(layer[None], factor, ceil_mode=True)[0] if factor > 1 else layer


def _local_mean(arrays: Tensor) -> Tensor:
    """Return the means over 5 x 5 pixels, one axis after the other."""
    rows = F.avg_pool2d(arrays[None], (5, 1), stride=1, padding=(2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, 5), stride=1, padding=(0, 2), count_include_pad=False)[0]


class RegionNetwork(nn.Module):
    """U-Net whose outputs are the insonified region, and the depth and the beam of its pixels.

    Blocks of 4 x 4 cells are the channels of the first layer, so that a screen of 192 x 192 cells takes about 0.2
    GFLOP.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = 32, 64, 84, 124
        self.stem = nn.Sequential(_convolution((FEATURES + 2) * 16, first, kernel=1), _convolution(first, first))
        self.down1 = nn.Sequential(_convolution(first, second, stride=2), _Residual(second))
        self.down2 = nn.Sequential(_convolution(second, third, stride=2), _Residual(third))
        self.down3 = nn.Sequential(_convolution(third, fourth, stride=2), _Residual(fourth))
        self.whole = nn.Sequential(nn.Linear(fourth, fourth), nn.ReLU(), nn.Linear(fourth, fourth))
        self.up2 = _convolution(fourth + third, third)
        self.up1 = _convolution(third + second, second)
        self.up0 = _convolution(second + first, first)
        self.output = nn.Conv2d(first, 3 * 16, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Find the region.

        Args:
            features: Features of screens, ``(batch, FEATURES, GRID, GRID)``.

        Returns:
            Logits of insonified cells, of their depth from 0 (probe) to 1, and of their beam from 0 to 1, counted from
            the left, or from the top if the probe is at the left or right, ``(batch, 3, GRID, GRID)``.
        """
        axis = torch.linspace(-1, 1, features.shape[-1], device=features.device, dtype=features.dtype)
        position = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(features), -1, -1, -1)
        level0 = self.stem(F.pixel_unshuffle(torch.cat([features, position], dim=1), 4))
        level1 = self.down1(level0)
        level2 = self.down2(level1)
        level3 = self.down3(level2)
        level3 = level3 + self.whole(level3.mean((2, 3)))[:, :, None, None]
        result = self.up2(torch.cat([_double(level3), level2], dim=1))
        result = self.up1(torch.cat([_double(result), level1], dim=1))
        result = self.up0(torch.cat([_double(result), level0], dim=1))
        return F.pixel_shuffle(self.output(result), 4)


def _double(inputs: Tensor) -> Tensor:
    return F.interpolate(inputs, scale_factor=2, mode="bilinear", align_corners=False)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two convolutions whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(inputs + self.second(self.first(inputs)))


def store_network(path: Path, network: RegionNetwork, score: Sequence[float]) -> None:
    """Store a trained network in half precision.

    Args:
        path: File to write.
        network: The network.
        score: Coefficients of the score.
    """
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    with replaced(path) as partial:
        torch.save({"weights": weights, "score": [float(value) for value in score]}, partial)


@lru_cache(maxsize=1)
def load_network() -> tuple[RegionNetwork, NDArray[np.float64]]:
    """Load the trained network of this package.

    Returns:
        The network in evaluation mode, and the coefficients of the score.
    """
    with files("cm_lightning.confidence.domain").joinpath(WEIGHTS_FILE).open("rb") as file:
        return read_network(file)


def read_network(file: IO[bytes] | Path) -> tuple[RegionNetwork, NDArray[np.float64]]:
    """Read a network that was stored by :func:`store_network`.

    Args:
        file: File of the weights.

    Returns:
        The network in evaluation mode, and the coefficients of the score.
    """
    stored = torch.load(file, map_location="cpu", weights_only=True)
    network = RegionNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in stored["weights"].items()})
    return network.eval(), np.array(stored["score"])
