"""MONAI transforms that compute confidence maps."""

import warnings
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type

from cm_lightning.confidence import ConfidenceMapSolver, Geometry, ProbeName, find_geometry


class ConfidenceMap(Transform):  # type: ignore[misc]
    """MONAI transform that computes the confidence map of an image.

    The map is computed separately for every frame, that is, for every channel and every index of axes other than depth
    and lateral. It should be used before cropping, flipping and rotation, since a confidence map needs a whole frame
    with the probe at its first row.

    Args:
        solver: Solver of the maps; ``ConfidenceMapSolver()`` by default.
        probe: Insonified region: ``whole`` frame, the rectangle of a ``linear`` probe inside a black background, the
            fan of a ``convex`` probe before a black background, ``auto`` for the region of any screen, or a geometry.
            It is ignored if there is a mask.
        depth_axis: Axis of depth, without counting the channel. For 2D images from MONAI's readers, whose first axis is
            the column, this is 1.
        lateral_axis: Lateral axis, without counting the channel. For 2D images from MONAI's readers, this is 0.
        flip_depth: Whether the probe is at the last index of the depth axis.

    Raises:
        ValueError: The two axes are equal or negative.

    References:
        Karamalis et al., "Ultrasound confidence maps using random walks", Medical Image Analysis 2012.
    """

    backend: ClassVar[list[TransformBackends]] = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        solver: ConfidenceMapSolver | None = None,
        probe: ProbeName | Geometry = "whole",
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
        """Compute the confidence map.

        Args:
            img: Channel-first image, ``(channel, *spatial)``, with two or more spatial axes, as an array, tensor or
                MetaTensor.
            mask: Insonified pixels, broadcastable to ``img``.

        Returns:
            Confidence map from 0 to 1 with the shape, type, device and metadata of the image; float64 for float64
            images, and float32 otherwise.

        Raises:
            ValueError: The image does not have both axes.
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
            geometry = find_geometry(frames, self.probe, aspect=self._aspect(img), up="top")
            if geometry.warning is not None:
                warnings.warn(geometry.warning, UserWarning, stacklevel=2)
            maps = self.solver(frames, *geometry.solver_masks(frames))
        if self.flip_depth:
            maps = torch.flip(maps, (-2,)) if isinstance(maps, torch.Tensor) else np.flip(maps, -2)
        image_axes = (1 + self.depth_axis, 1 + self.lateral_axis)
        output: Any
        if isinstance(maps, torch.Tensor):
            output = maps.movedim((-2, -1), image_axes).contiguous()
        else:
            output = np.ascontiguousarray(np.moveaxis(maps, (-2, -1), image_axes))
        result: NdarrayOrTensor = convert_to_dst_type(output, dst=img, dtype=output.dtype)[0]
        return result

    def _to_frames(self, array: NdarrayOrTensor) -> Any:
        """Move the axes to ``(..., depth, lateral)`` with the probe at row 0."""
        image_axes = (1 + self.depth_axis, 1 + self.lateral_axis)
        if isinstance(array, torch.Tensor):
            plain = array.as_tensor() if isinstance(array, MetaTensor) else array
            frames = plain.movedim(image_axes, (-2, -1))
            return torch.flip(frames, (-2,)) if self.flip_depth else frames
        frames = np.moveaxis(array, image_axes, (-2, -1))
        return np.flip(frames, -2) if self.flip_depth else frames

    def _aspect(self, img: NdarrayOrTensor) -> float:
        """Return the width of a pixel divided by its height, from the affine matrix if there is one."""
        if not isinstance(img, MetaTensor):
            return 1.0
        spacing = img.pixdim
        if len(spacing) <= max(self.depth_axis, self.lateral_axis):
            return 1.0
        return float(spacing[self.lateral_axis] / spacing[self.depth_axis])


class ConfidenceMapd(MapTransform):  # type: ignore[misc]
    """Dictionary version of :class:`ConfidenceMap`, which adds a confidence map for every image.

    Args:
        keys: Keys of the images.
        solver: See :class:`ConfidenceMap`.
        probe: See :class:`ConfidenceMap`.
        depth_axis: See :class:`ConfidenceMap`.
        lateral_axis: See :class:`ConfidenceMap`.
        flip_depth: See :class:`ConfidenceMap`.
        output_keys: Keys of the maps, one for each of ``keys``; ``<key>_confidence`` by default.
        mask_key: Key of a mask of insonified pixels for all images.
        allow_missing_keys: Whether images may be missing.

    Raises:
        ValueError: The numbers of ``keys`` and ``output_keys`` differ.

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
        probe: ProbeName | Geometry = "whole",
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
        """Add the confidence maps.

        Args:
            data: Images by key.

        Returns:
            Images and maps by key.
        """
        result = dict(data)
        for key, output_key in self.key_iterator(result, self.output_keys):
            mask = None if self.mask_key is None else result[self.mask_key]
            result[output_key] = self.transform(result[key], mask)
        return result
