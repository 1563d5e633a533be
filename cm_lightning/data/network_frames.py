"""Images on the network's grid, as a whole or a few frames at a time."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_lightning.confidence import ProbeGeometry
from cm_lightning.data.cases import Case
from cm_lightning.data.frames import to_frames, to_volume
from cm_lightning.data.map_sources import MapProvider
from cm_lightning.data.reading import ReadCase
from cm_lightning.data.resampling import resample

Sample = dict[str, Any]


class NetworkFrames:
    """Image of one case with its masks and maps on the network's grid, computed when they are needed.

    A volume of the study has half a billion voxels. Its values on a fine grid would take gigabytes as float32, so
    sliding windows read a few frames at a time.

    Lightning passes it unchanged with a batch, because it is not a dataclass.

    Args:
        case: The case.
        image: Image at file resolution, which has its lowest insonified intensity everywhere outside of the insonified
            region, ``(depth, lateral[, elevation])``.
        inside: Insonified voxels, ``(depth, lateral[, elevation])``.
        intensities: Lowest and highest insonified intensity.
        geometry: Geometry of the insonified region.
        size: Size of the network's grid.
        boundary: Whether source and sink of the random walk are needed.

    Attributes:
        size: Size of the network's grid.
        inside: Insonified voxels at file resolution, ``(depth, lateral[, elevation])``.
    """

    def __init__(
        self,
        case: Case,
        image: NDArray[np.generic],
        inside: NDArray[np.bool_],
        intensities: tuple[float, float],
        geometry: ProbeGeometry,
        size: tuple[int, ...],
        boundary: bool = False,
    ) -> None:
        self.inside = inside
        self.size = size
        self._case = case
        self._image = image
        self._intensities = intensities
        self._geometry = geometry
        self._boundary = boundary
        self._maps: Mapping[str, MapProvider] = {}
        self._finish: Callable[[Sample], Sample] | None = None

    @classmethod
    def from_case(cls, read: ReadCase, size: tuple[int, ...], boundary: bool = False) -> Self:
        """Create the frames of a case without confidence maps.

        Args:
            read: The case with its arrays.
            size: Size of the network's grid.
            boundary: Whether source and sink of the random walk are needed.

        Returns:
            The frames.
        """
        image = read.arrays.image
        inside = insonified_voxels(image, read.geometry)
        mask = inside if inside.any() else np.True_
        low = image.min(where=mask, initial=image.max())
        high = image.max(where=mask, initial=image.min())
        masked = image if read.geometry.kind == "whole" else np.where(inside, image, low)
        return cls(read.case, masked, inside, (float(low), float(high)), read.geometry, size, boundary)

    def __call__(self, frames: range | None = None) -> Sample:
        """Compute frames.

        Args:
            frames: Consecutive indices along elevation of the network's grid; all of them by default.

        Returns:
            Dictionary with ``image`` (float32 from 0 to 1), ``domain`` (bool) and, if they are needed, ``source`` and
            ``sink`` (bool) and confidence maps (float32 from 0 to 1), ``(1, depth, lateral[, elevation])`` each.
        """
        low, high = self._intensities
        image = resample(self._image, self.size, "linear", frames).sub_(low).div_((high - low) or 1.0)
        sample: Sample = {"image": image, "domain": resample(self.inside, self.size, "nearest", frames)}
        if self._boundary:
            sample |= self._source_and_sink(sample["domain"])
        for key, provider in self._maps.items():
            sample[key] = provider(self._case, sample["domain"], self.size, frames)
        return sample

    def batch(self, frames: range | None = None, device: torch.device | str = "cpu") -> Sample:
        """Compute frames as a batch of one case.

        Args:
            frames: Consecutive indices along elevation of the network's grid; all of them by default.
            device: Device of the batch.

        Returns:
            Entries of :meth:`__call__` with a batch dimension, after the function ``finish``.
        """
        batch = {key: value[None].to(device) for key, value in self(frames).items()}
        return batch if self._finish is None else self._finish(batch)

    def with_maps(self, maps: Mapping[str, MapProvider]) -> Self:
        """Return the same frames with confidence maps.

        Args:
            maps: Providers of confidence maps by their key.

        Returns:
            The frames.
        """
        frames = copy.copy(self)
        frames._maps = maps
        return frames

    def finished_by(self, finish: Callable[[Sample], Sample]) -> Self:
        """Return the same frames with a function that completes their batches.

        Args:
            finish: Function from a batch with one case to a batch, such as the computation of confidence maps.

        Returns:
            The frames.
        """
        frames = copy.copy(self)
        frames._finish = finish
        return frames

    def _source_and_sink(self, domain: Tensor) -> Sample:
        """Find source and sink on the network's grid. They are not resampled, because they are thin lines."""
        frames = to_frames(domain[0].numpy())
        grid = (frames.shape[-2], frames.shape[-1])
        old = (self._image.shape[0], self._image.shape[1])
        lines = self._geometry.on_grid(old, grid).boundary(frames)
        return {
            key: torch.from_numpy(to_volume(np.broadcast_to(mask, frames.shape)).copy())[None]
            for key, mask in zip(("source", "sink"), lines, strict=True)
        }


def insonified_voxels(image: NDArray[np.generic], geometry: ProbeGeometry) -> NDArray[np.bool_]:
    """Return the insonified voxels of an image.

    Args:
        image: Image, ``(depth, lateral[, elevation])``.
        geometry: Geometry of the insonified region.

    Returns:
        Mask, ``(depth, lateral[, elevation])``, which takes no memory for the elevation if all frames are equal.
    """
    frames = to_frames(image)
    return to_volume(np.broadcast_to(geometry.domain(frames), frames.shape))
