"""Source and sink of random walks, as masks on the CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cm_lightning.confidence.arrays import to_numpy

BoolArray = NDArray[np.bool_]
SinkMode = Literal["all", "mid", "min"]
# Rows and columns.
Rectangle = tuple[slice, slice]


@dataclass(frozen=True)
class Boundary:
    """Distinct masks of frames, ``(masks, depth, lateral)`` each, and the masks of every frame.

    Attributes:
        domain: Insonified pixels.
        source: Pixels of the domain at the face of the probe.
        sink: Pixels of the domain at which random walks end without returning to the probe.
        reaches_source: Pixels whose connected component of the domain contains a source.
        reaches_sink: Pixels whose connected component of the domain contains a sink.
        boxes: Bounding boxes of the domains (first row, end row, first column, end column), ``(masks, 4)``; all 0 for
            empty domains.
        numbers: Index of the masks of every frame, ``(frames,)``.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray
    reaches_source: BoolArray
    reaches_sink: BoolArray
    boxes: NDArray[np.int64]
    numbers: NDArray[np.int64]

    def rectangle(self, frame: int) -> Rectangle | None:
        """Return the bounding box of the domain of a frame, or None if the domain is empty."""
        first_row, end_row, first_column, end_column = self.boxes[self.numbers[frame]].tolist()
        return (slice(first_row, end_row), slice(first_column, end_column)) if end_row else None

    def crop(self, frames: Sequence[int], rectangles: Sequence[Rectangle]) -> list[BoolArray]:
        """Return the masks of frames in rectangles of the same shape.

        Args:
            frames: Indices of the frames.
            rectangles: Rectangle of each frame.

        Returns:
            Domain, source, sink, and pixels that reach source and sink, ``(frames, depth, lateral)`` each, or ``(1,
            depth, lateral)`` if they are equal for all frames.
        """
        places = [
            (number, *rectangle)
            for number, rectangle in zip(self.numbers[list(frames)].tolist(), rectangles, strict=True)
        ]
        if all(place == places[0] for place in places):
            places = places[:1]
        return [np.stack([mask[place] for place in places]) for mask in self.masks]

    @property
    def masks(self) -> tuple[BoolArray, BoolArray, BoolArray, BoolArray, BoolArray]:
        """Domain, source, sink, and pixels that reach source and sink."""
        return self.domain, self.source, self.sink, self.reaches_source, self.reaches_sink


def find_boundary(
    count: int,
    shape: tuple[int, int],
    frames: NDArray[np.generic] | None,
    masks: tuple[BoolArray | None, BoolArray | None, BoolArray | None],
    numbers: NDArray[np.int64] | None,
    sink_mode: SinkMode,
) -> Boundary:
    """Find the masks that are not given, and the connected components.

    Args:
        count: Number of frames.
        shape: Shape of a frame, ``(depth, lateral)``.
        frames: Intensities, ``(frames, depth, lateral)``; only needed for ``sink_mode="min"``.
        masks: Domain (all pixels if None), source (the first pixel of the domain in every column if None) and sink
            (chosen by ``sink_mode`` if None), ``(masks, depth, lateral)`` or ``(1, depth, lateral)`` each.
        numbers: Index of the masks of every frame, ``(frames,)``; None if all frames have the same masks.
        sink_mode: Choice among the last pixels of the domain in every column: ``all``, only the one in the ``mid``
            column, or those with the ``min`` intensity, without a tenth of the columns at either side.

    Returns:
        The boundary.

    Raises:
        ValueError: ``sink_mode`` is ``min``, but there are no frames.
    """
    domain, source, sink = masks
    if numbers is None:
        numbers = np.zeros(count, np.int64)
    if sink is None and sink_mode == "min":  # The sink depends on the intensities of every frame.
        domain, source = (mask if mask is None or len(mask) == 1 else mask[numbers] for mask in (domain, source))
        numbers = np.arange(count)
    if domain is None:
        domain = np.ones((1, *shape), dtype=bool)
    domain = np.ascontiguousarray(domain)
    scan = _scan(domain)
    source = _at_rows(scan.first_rows, shape[0]) if source is None else source & domain
    if sink is None:
        sink = _choose(_at_rows(scan.last_rows, shape[0]), frames, sink_mode)
    sink = sink & domain
    reaches = [_reachable(domain, mask, scan.connected) for mask in (source, sink)]
    distinct = max(len(mask) for mask in (domain, source, sink))
    domain, source, sink, reaches_source, reaches_sink = (
        np.broadcast_to(mask, (distinct, *shape)) for mask in (domain, source, sink, *reaches)
    )
    boxes = np.broadcast_to(scan.boxes, (distinct, 4))
    return Boundary(domain, source, sink, reaches_source, reaches_sink, boxes, numbers)


def distinct_masks(masks: Sequence[Any], count: int) -> tuple[list[Any], NDArray[np.int64] | None]:
    """Find which successive frames have the same masks, on the device of the masks.

    Args:
        masks: NumPy arrays, CuPy arrays, tensors of type bool, or None, ``(frames, depth, lateral)`` or ``(1, depth,
            lateral)`` each.
        count: Number of frames.

    Returns:
        The masks without repetitions, ``(masks, depth, lateral)`` or ``(1, depth, lateral)``, and the index of the
        masks of every frame, ``(frames,)``; None if all frames have the same masks.
    """
    changes = np.zeros(max(count - 1, 0), dtype=bool)
    for mask in masks:
        if mask is not None and len(mask) > 1 and not changes.all():
            different = mask[1:] != mask[:-1]
            changes |= to_numpy(different.reshape(len(different), -1).any(1)).astype(bool)
    first = np.flatnonzero(np.concatenate([[True], changes]))
    if len(first) == 1:
        return [mask if mask is None else mask[:1] for mask in masks], None
    numbers = np.concatenate([[0], np.cumsum(changes)])
    if len(first) == count:
        return list(masks), numbers
    return [mask if mask is None or len(mask) == 1 else mask[first.tolist()] for mask in masks], numbers


class _Scan(NamedTuple):
    """Shapes of domains.

    Attributes:
        first_rows: First row of the domain in each column, ``(masks, lateral)``; -1 in empty columns.
        last_rows: Last row of the domain in each column, ``(masks, lateral)``; -1 in empty columns.
        boxes: Bounding boxes as in :class:`Boundary`, ``(masks, 4)``.
        connected: Whether the domain is certainly connected, ``(masks,)``: in each column, it is an interval that
            touches those of the adjacent columns.
    """

    first_rows: NDArray[np.int32]
    last_rows: NDArray[np.int32]
    boxes: NDArray[np.int64]
    connected: BoolArray


def _scan(domain: BoolArray) -> _Scan:
    """Find the shapes of domains, ``(masks, depth, lateral)``."""
    count, depth, lateral = domain.shape
    if domain.all():  # This is the usual case, and does not need compiled code.
        first_rows, last_rows = np.zeros((count, lateral), np.int32), np.full((count, lateral), depth - 1, np.int32)
        return _Scan(first_rows, last_rows, np.tile([0, depth, 0, lateral], (count, 1)), np.ones(count, dtype=bool))
    # The import takes time, and is only needed here.
    from cm_lightning.confidence.scanning import scan_masks

    scan = _Scan(
        np.empty((count, lateral), np.int32),
        np.empty((count, lateral), np.int32),
        np.empty((count, 4), np.int64),
        np.empty(count, dtype=bool),
    )
    scan_masks(domain.view(np.uint8), *scan)
    return scan


def _at_rows(rows: NDArray[np.int32], depth: int) -> BoolArray:
    """Return masks ``(masks, depth, lateral)`` of one pixel in each column, at the given rows; -1 for none."""
    mask = np.zeros((len(rows), depth, rows.shape[1]), dtype=bool)
    number, column = np.nonzero(rows >= 0)
    mask[number, rows[number, column], column] = True
    return mask


def _reachable(domain: BoolArray, mask: BoolArray, connected: BoolArray) -> BoolArray:
    """Return the pixels of connected components of the domain that contain a pixel of a mask."""
    count = max(len(domain), len(mask))
    occurs = np.broadcast_to(mask.any(axis=(1, 2)), count)
    result: BoolArray
    if connected.all():
        result = domain if occurs.all() else domain & occurs[:, None, None]
        return result
    # The import takes time, and is only needed here.
    from scipy import ndimage

    eight_neighbours = np.ones((3, 3), dtype=bool)
    result = np.zeros((count, *domain.shape[1:]), dtype=bool)
    for number in range(count):
        within, wanted = (masks[number if len(masks) > 1 else 0] for masks in (domain, mask))
        if connected[number if len(connected) > 1 else 0]:
            result[number] = within & occurs[number]
            continue
        components, total = ndimage.label(within, structure=eight_neighbours)
        contains = np.zeros(total + 1, dtype=bool)
        contains[components[wanted]] = True
        contains[0] = False
        result[number] = contains[components]
    return result


def column_source(domain: BoolArray) -> BoolArray:
    """Return the first insonified pixel of every column, which is the source for a linear probe.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.

    Returns:
        Mask with at most one pixel per column, ``(..., depth, lateral)``.
    """
    first: BoolArray = domain & (np.arange(domain.shape[-2])[:, None] == domain.argmax(axis=-2)[..., None, :])
    return first


def column_sink(domain: BoolArray) -> BoolArray:
    """Return the last insonified pixel of every column, which is the default sink.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.

    Returns:
        Mask with at most one pixel per column, ``(..., depth, lateral)``.
    """
    return column_source(domain[..., ::-1, :])[..., ::-1, :]


def _choose(sink: BoolArray, frames: NDArray[np.generic] | None, sink_mode: SinkMode) -> BoolArray:
    """Choose among the last pixels of the columns."""
    match sink_mode:
        case "all":
            return sink
        case "mid":
            selected = np.zeros_like(sink)
            for mask, selected_mask in zip(sink, selected, strict=True):
                columns = np.flatnonzero(mask.any(axis=0))
                if len(columns):
                    middle = columns[len(columns) // 2]
                    selected_mask[:, middle] = mask[:, middle]
            return selected
        case "min":
            if frames is None:
                raise ValueError("sink 'min' needs the intensities of the frames, found None.")
            selected = np.zeros(frames.shape, dtype=bool)
            for index, frame in enumerate(frames):
                mask = sink[index if len(sink) > 1 else 0]
                columns = np.flatnonzero(mask.any(axis=0))
                margin = len(columns) // 10
                inner = columns[margin : len(columns) - margin]
                if len(inner):
                    allowed = np.zeros_like(mask)
                    allowed[:, inner] = mask[:, inner]
                    selected[index] = allowed & (frame == frame[allowed].min())
            return selected
