"""Where random walks begin and end: masks in, masks out, on the host."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolArray = NDArray[np.bool_]
SinkMode = Literal["all", "mid", "min"]


@dataclass(frozen=True)
class Boundary:
    """Masks of frames, each ``(frames or 1, depth, lateral)``; one mask can serve all frames.

    Attributes:
        domain: Insonified pixels.
        source: Pixels of the domain at the probe's face.
        sink: Pixels of the domain where a walk is lost.
        reaches_source: Pixels whose connected part of the domain holds a source.
        reaches_sink: The same for a sink.
    """

    domain: BoolArray
    source: BoolArray
    sink: BoolArray
    reaches_source: BoolArray
    reaches_sink: BoolArray

    def __len__(self) -> int:
        """Number of different masks."""
        return len(self.domain)

    def take(self, frames: slice) -> "Boundary":
        """Take the masks of some frames."""
        if len(self) == 1:
            return self
        return Boundary(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    def crop(self, rows: slice, columns: slice) -> "Boundary":
        """Take a rectangle of every mask."""
        return Boundary(*(getattr(self, name)[:, rows, columns] for name in self.__dataclass_fields__))


def find_boundary(
    shape: tuple[int, int],
    frames: NDArray[np.generic] | None,
    domain: BoolArray | None,
    source: BoolArray | None,
    sink: BoolArray | None,
    sink_mode: SinkMode,
) -> Boundary:
    """Complete the masks that a caller gave.

    Args:
        shape: ``(depth, lateral)``.
        frames: Intensities, ``(frames, depth, lateral)``; only looked at, and only needed, for ``sink_mode="min"``.
        domain: Insonified pixels, ``(frames or 1, depth, lateral)``; all pixels if None.
        source: Pixels at the probe's face; the first pixel of the domain in every column if None.
        sink: Pixels where a walk is lost; chosen by ``sink_mode`` if None.
        sink_mode: Of the last pixel of the domain in every column, take ``all``, the ``mid`` one of the columns, or
            those with the ``min`` intensity, not counting a tenth of the columns on either side.

    Returns:
        The masks, of one common length.
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
    if domain.all():  # all pixels touch
        everywhere = [np.broadcast_to(mask.any(axis=(1, 2), keepdims=True), mask.shape) for mask in (source, sink)]
        return Boundary(domain, source, sink, *everywhere)
    # Pixels touch over corners too, but not from frame to frame.
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = True
    parts, number = ndimage.label(domain, structure=touching)
    reaches = []
    for mask in (source, sink):
        holds = np.zeros(number + 1, dtype=bool)
        holds[parts[mask]] = True
        holds[0] = False
        reaches.append(holds[parts])
    return Boundary(domain, source, sink, *reaches)


def column_source(domain: BoolArray) -> BoolArray:
    """Mark the first insonified pixel of every column: the face of a linear probe.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.

    Returns:
        Mask of the same shape with at most one pixel a column.
    """
    first: BoolArray = domain & (np.arange(domain.shape[-2])[:, None] == domain.argmax(axis=-2)[..., None, :])
    return first


def column_sink(domain: BoolArray) -> BoolArray:
    """Mark the deepest insonified pixel of every column.

    Args:
        domain: Insonified pixels, ``(..., depth, lateral)``.

    Returns:
        Mask of the same shape with at most one pixel a column.
    """
    return column_source(domain[..., ::-1, :])[..., ::-1, :]


def rectangle_around(domain: BoolArray) -> tuple[slice, slice]:
    """Give the smallest rectangle that holds a domain.

    Args:
        domain: Insonified pixels, ``(depth, lateral)``, at least one.

    Returns:
        Its rows and its columns.
    """
    rows, columns = (np.flatnonzero(domain.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _choose(sink: BoolArray, frames: NDArray[np.generic] | None, sink_mode: SinkMode) -> BoolArray:
    """Keep some of the columns' last pixels."""
    match sink_mode:
        case "all":
            return sink
        case "mid":
            chosen = np.zeros_like(sink)
            for mask, kept in zip(sink, chosen, strict=True):
                columns = np.flatnonzero(mask.any(axis=0))
                if len(columns):
                    middle = columns[len(columns) // 2]
                    kept[:, middle] = mask[:, middle]
            return chosen
        case "min":
            if frames is None:
                raise ValueError("sink 'min' needs the frames' intensities.")
            chosen = np.zeros(frames.shape, dtype=bool)
            for index, frame in enumerate(frames):
                mask = sink[index if len(sink) > 1 else 0]
                columns = np.flatnonzero(mask.any(axis=0))
                margin = len(columns) // 10
                inner = columns[margin : len(columns) - margin]
                if len(inner):
                    allowed = np.zeros_like(mask)
                    allowed[:, inner] = mask[:, inner]
                    chosen[index] = allowed & (frame == frame[allowed].min())
            return chosen
