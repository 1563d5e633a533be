"""MONAI transforms that compute confidence maps."""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type

from cm_lightning.confidence import ConfidenceMapSolver, ProbeName, find_geometry


class ConfidenceMap(Transform):  # type: ignore[misc]
    """Compute the confidence map of an image, frame by frame.

    Every channel, and every index of axes other than depth and lateral, is a frame of its own: nothing is averaged, and
    the map has the shape of the image. Use it before cropping, flipping and rotating: a map belongs to a whole frame
    with the probe at its first row.

    Args:
        solver: Computes the maps; ``ConfidenceMapSolver()`` by default.
        probe: Which pixels are insonified: ``whole`` frames, the rectangle of a ``linear`` probe inside black bands,
            the fan of a ``convex`` one, or whichever is found (``auto``). Not looked at where a mask is given.
        depth_axis: Axis along which the sound travels, not counting the channel. Mind that MONAI's readers put a
            picture's columns first: there, depth is axis 1 and lateral 0.
        lateral_axis: Axis across the frame, not counting the channel.
        flip_depth: Whether the probe is at the last index of the depth axis.

    Raises:
        ValueError: Both axes are the same or negative.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        solver: ConfidenceMapSolver | None = None,
        probe: ProbeName = "whole",
        depth_axis: int = 0,
        lateral_axis: int = 1,
        flip_depth: bool = False,
    ) -> None:
        if depth_axis == lateral_axis or min(depth_axis, lateral_axis) < 0:
            raise ValueError(
                f"depth_axis and lateral_axis must be two different axes counted from 0, found {depth_axis} and "
                f"{lateral_axis}."
            )
        self.solver = solver or ConfidenceMapSolver()
        self.probe = probe
        self.depth_axis = depth_axis
        self.lateral_axis = lateral_axis
        self.flip_depth = flip_depth

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> NdarrayOrTensor:
        """Compute the map.

        Args:
            img: Channel-first image, ``(channel, *spatial)``, with two or more spatial axes; array, tensor or
                MetaTensor.
            mask: Insonified pixels, broadcastable to ``img``.

        Returns:
            Map in [0, 1] of the same shape, kind and device, with the image's metadata; float64 for float64 images,
            else float32.

        Raises:
            ValueError: The image lacks one of the axes.
        """
        if img.ndim <= 1 + max(self.depth_axis, self.lateral_axis):
            raise ValueError(
                f"The image must have a channel and the spatial axes {self.depth_axis} (depth) and {self.lateral_axis} "
                f"(lateral), found shape {tuple(img.shape)}."
            )
        frames = self._to_frames(img)
        if mask is not None:
            maps = self.solver(frames, self._to_frames(mask))
        else:
            geometry = find_geometry(frames, self.probe, aspect=self._aspect(img))
            maps = self.solver(frames, *geometry.solver_masks(frames))
        if self.flip_depth:
            maps = torch.flip(maps, (-2,)) if isinstance(maps, torch.Tensor) else np.flip(maps, -2)
        places = (1 + self.depth_axis, 1 + self.lateral_axis)
        moved: Any
        if isinstance(maps, torch.Tensor):
            moved = maps.movedim((-2, -1), places).contiguous()
        else:
            moved = np.ascontiguousarray(np.moveaxis(maps, (-2, -1), places))
        result: NdarrayOrTensor = convert_to_dst_type(moved, dst=img, dtype=moved.dtype)[0]
        return result

    def _to_frames(self, array: NdarrayOrTensor) -> Any:
        """Bring the axes to ``(..., depth, lateral)`` with the probe at row 0."""
        places = (1 + self.depth_axis, 1 + self.lateral_axis)
        if isinstance(array, torch.Tensor):
            plain = array.as_tensor() if isinstance(array, MetaTensor) else array
            frames = plain.movedim(places, (-2, -1))
            return torch.flip(frames, (-2,)) if self.flip_depth else frames
        frames = np.moveaxis(array, places, (-2, -1))
        return np.flip(frames, -2) if self.flip_depth else frames

    def _aspect(self, img: NdarrayOrTensor) -> float:
        """Width of a pixel over its height, from the affine where there is one."""
        if not isinstance(img, MetaTensor):
            return 1.0
        spacing = img.pixdim
        if len(spacing) <= max(self.depth_axis, self.lateral_axis):
            return 1.0
        return float(spacing[self.lateral_axis] / spacing[self.depth_axis])


class ConfidenceMapd(MapTransform):  # type: ignore[misc]
    """Dictionary version of :class:`ConfidenceMap`: adds a map beside every image.

    Args:
        keys: Keys of the images.
        solver: As for :class:`ConfidenceMap`.
        probe: The same.
        depth_axis: The same.
        lateral_axis: The same.
        flip_depth: The same.
        output_keys: Keys of the maps, one for each of ``keys``; ``<key>_confidence`` by default.
        mask_key: Key of a mask of insonified pixels for all of them.
        allow_missing_keys: Whether images may be missing.

    Raises:
        ValueError: There are not as many ``output_keys`` as ``keys``.

    Example:
        >>> batch = ConfidenceMapd("image")({"image": torch.rand(1, 12, 10, 3)})
        >>> sorted(batch), tuple(batch["image_confidence"].shape)
        (['image', 'image_confidence'], (1, 12, 10, 3))
    """

    backend: ClassVar[list[TransformBackends]] = ConfidenceMap.backend

    def __init__(
        self,
        keys: KeysCollection,
        solver: ConfidenceMapSolver | None = None,
        probe: ProbeName = "whole",
        depth_axis: int = 0,
        lateral_axis: int = 1,
        flip_depth: bool = False,
        output_keys: KeysCollection | None = None,
        mask_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ConfidenceMap(solver, probe, depth_axis, lateral_axis, flip_depth)
        if output_keys is None:
            self.output_keys: tuple[Hashable, ...] = tuple(f"{key}_confidence" for key in self.keys)
        else:
            self.output_keys = (output_keys,) if isinstance(output_keys, str) else tuple(output_keys)
        if len(self.output_keys) != len(self.keys):
            raise ValueError(
                f"output_keys must name one map for each of {list(self.keys)}, found {list(self.output_keys)}."
            )
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Add the maps.

        Args:
            data: Images by key.

        Returns:
            The same with maps.
        """
        result = dict(data)
        for key, output_key in self.key_iterator(result, self.output_keys):
            mask = None if self.mask_key is None else result[self.mask_key]
            result[output_key] = self.transform(result[key], mask)
        return result
