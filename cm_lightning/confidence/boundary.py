"""Source and sink of random walks, as masks on the CPU."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
SinkMode = Literal["all", "mid", "min"]


@dataclass(frozen=True)
class Boundary:
    """Masks of frames, ``(frames, depth, lateral)`` each, or ``(1, depth, lateral)`` if they are equal for all frames.

    Attributes:
        domain: Insonified pixels.
        source: Pixels of the domain at the face of the probe.
        sink: Pixels of the domain at which random walks end without returning to the probe.
        reaches_source: Pixels whose connected component of the domain contains a source.
        reaches_sink: Pixels whose connected component of the domain contains a sink.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray
    reaches_source: BoolArray
    reaches_sink: BoolArray

    def __len__(self) -> int:
        """Return the number of masks."""
        return len(self.domain)

    def take(self, frames: slice) -> "Boundary":
        """Return the masks of a range of frames; masks that are equal for all frames are returned as they are."""
        if len(self) == 1:
            return self
        return Boundary(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    def crop(self, rows: slice, columns: slice) -> "Boundary":
        """Return the part of every mask in a rectangle, given by slices of rows and columns."""
        return Boundary(*(getattr(self, name)[:, rows, columns] for name in self.__dataclass_fields__))


def find_boundary(
    shape: tuple[int, int],
    frames: NDArray[np.generic] | None,
    domain: BoolArray | None,
    source: BoolArray | None,
    sink: BoolArray | None,
    sink_mode: SinkMode,
) -> Boundary:
    """Find the masks that are not given, and the connected components.

    Args:
        shape: Shape of a frame, ``(depth, lateral)``.
        frames: Intensities, ``(frames, depth, lateral)``; only needed for ``sink_mode="min"``.
        domain: Insonified pixels, ``(frames, depth, lateral)`` or ``(1, depth, lateral)``; all pixels if None.
        source: Pixels at the face of the probe, with a shape as ``domain``; the first pixel of the domain in every
            column if None.
        sink: Pixels at which random walks end, with a shape as ``domain``; chosen by ``sink_mode`` if None.
        sink_mode: Choice among the last pixels of the domain in every column: ``all``, only the one in the ``mid``
            column, or those with the ``min`` intensity, without a tenth of the columns at either side.

    Returns:
        The masks, all with the same number of frames.

    Raises:
        ValueError: ``sink_mode`` is ``min``, but there are no frames.
    """
    if domain is None:
        domain = np.ones((1, *shape), dtype=bool)
    source = column_source(domain) if source is None else source & domain
    if sink is None:
        sink = _choose(column_sink(domain), frames, sink_mode)
    sink = sink & domain
    count = max(len(domain), len(source), len(sink))
    domain, source, sink = (
        mask if len(mask) == count else np.broadcast_to(mask, (count, *shape)) for mask in (domain, source, sink)
    )
    if domain.all():  # There is only one component.
        whole_frames = [np.broadcast_to(mask.any(axis=(1, 2), keepdims=True), mask.shape) for mask in (source, sink)]
        return Boundary(domain, source, sink, *whole_frames)
    # The import takes time, and is only needed here.
    from scipy import ndimage

    # 8-connectivity within a frame, and none between frames.
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = True
    components, number = ndimage.label(domain, structure=neighbours)
    reaches = []
    for mask in (source, sink):
        contains_mask = np.zeros(number + 1, dtype=bool)
        contains_mask[components[mask]] = True
        contains_mask[0] = False
        reaches.append(contains_mask[components])
    return Boundary(domain, source, sink, *reaches)


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


def bounding_box(domain: BoolArray) -> tuple[slice, slice]:
    """Return the bounding box of a domain.

    Args:
        domain: Insonified pixels, at least one, ``(depth, lateral)``.

    Returns:
        Slices of the rows and of the columns.
    """
    rows, columns = (np.flatnonzero(domain.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


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
