"""Compiled functions for masks, each with one pass over their pixels."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Integers = NDArray[Any]


# Number of pixels of a row that are compared at once with those above.
BLOCK = 64


@njit(cache=True, nogil=True)
def scan_masks(
    masks: Integers, first_rows: Integers, last_rows: Integers, boxes: Integers, connected: BoolArray
) -> None:
    """Find the bounding boxes of masks, their first and last pixels in columns, and which masks are connected.

    Args:
        masks: Masks as uint8, 0 or 1, ``(masks, depth, lateral)``.
        first_rows: Output, int32: first row of each column, -1 in empty columns, ``(masks, lateral)``.
        last_rows: Output, int32: last row of each column, -1 in empty columns, ``(masks, lateral)``.
        boxes: Output: first row, end row, first column and end column of each mask, all 0 if it is empty,
            ``(masks, 4)``.
        connected: Output: whether a mask is certainly connected, ``(masks,)``: in each column, it is an interval that
            touches those of the adjacent columns.
    """
    count, depth, lateral = masks.shape
    intervals = np.empty(lateral, np.int32)
    for number in range(count):
        mask, firsts, lasts = masks[number], first_rows[number], last_rows[number]
        for column in range(lateral):
            inside = mask[0, column] > 0
            firsts[column], lasts[column], intervals[column] = (0, depth - 1, 1) if inside else (-1, -1, 0)
        for row in range(1, depth):
            # Most rows equal the row above, which is found out quickly.
            for begin in range(0, lateral, BLOCK):
                end = min(begin + BLOCK, lateral)
                if _differ(mask[row, begin:end], mask[row - 1, begin:end]):
                    _continue_columns(mask, row, begin, end, firsts, lasts, intervals)
        columns = np.flatnonzero(intervals)
        connected[number] = len(columns) > 0
        boxes[number] = 0
        if len(columns) == 0:
            continue
        boxes[number, 2], boxes[number, 3] = columns[0], columns[-1] + 1
        boxes[number, 0], boxes[number, 1] = firsts[columns].min(), lasts[columns].max() + 1
        for column in range(columns[0], columns[-1] + 1):
            touches = column == columns[0] or (
                firsts[column] <= lasts[column - 1] + 1 and lasts[column] >= firsts[column - 1] - 1
            )
            if intervals[column] != 1 or not touches:
                connected[number] = False


@njit(cache=True, nogil=True)
def _differ(first: Integers, second: Integers) -> bool:
    """Return whether parts of two rows differ."""
    difference = np.uint8(0)
    for index in range(len(first)):
        difference |= np.uint8(first[index] ^ second[index])
    return difference != 0


@njit(cache=True, nogil=True)
def _continue_columns(
    mask: Integers, row: int, begin: int, end: int, firsts: Integers, lasts: Integers, intervals: Integers
) -> None:
    """Note where the mask begins or ends in the columns of a row. Open intervals have the last row of the mask."""
    for column in range(begin, end):
        inside, above = mask[row, column] > 0, mask[row - 1, column] > 0
        if inside and not above:
            if intervals[column] == 0:
                firsts[column] = row
            lasts[column] = mask.shape[0] - 1
            intervals[column] += 1
        elif above and not inside:
            lasts[column] = row - 1


@njit(cache=True, nogil=True)
def mark_pixels(
    domain: BoolArray,
    source: BoolArray,
    sink: BoolArray,
    reaches_source: BoolArray,
    reaches_sink: BoolArray,
    bits: tuple[np.uint8, np.uint8, np.uint8, np.uint8, np.uint8],
    virtual: bool,
    kinds: Integers,
) -> None:
    """Encode the boundary conditions of a mask as bits.

    Args:
        domain: Insonified pixels, ``(depth, lateral)``, of which the other masks are parts.
        source: Pixels at the probe, ``(depth, lateral)``.
        sink: Pixels at which random walks end, ``(depth, lateral)``.
        reaches_source: Pixels whose connected component contains a source, ``(depth, lateral)``.
        reaches_sink: Pixels whose connected component contains a sink, ``(depth, lateral)``.
        bits: Bits of pixels in the domain, of pixels with unknown values, of pixels with the value 1, and of pixels
            that are connected to a virtual source and to a virtual sink.
        virtual: Whether source and sink are virtual nodes; see
            :func:`cm_lightning.confidence.graph.boundary_conditions`.
        kinds: Output, uint8, ``(depth, lateral)``.
    """
    inside, unknown, value_one, virtual_source, virtual_sink = bits
    known_source, known_sink = (np.uint8(0), np.uint8(0)) if virtual else (np.uint8(1), np.uint8(1))
    for row in range(domain.shape[0]):
        for column in range(domain.shape[1]):
            within = np.uint8(domain[row, column])
            to_source = np.uint8(reaches_source[row, column]) & within
            to_sink = np.uint8(reaches_sink[row, column])
            at_source, at_sink = np.uint8(source[row, column]), np.uint8(sink[row, column])
            free = to_source & to_sink & ~(at_source & known_source) & ~(at_sink & known_sink)
            one = (to_source & ~to_sink) | (at_source & known_source)
            kinds[row, column] = (
                within * inside
                | free * unknown
                | one * value_one
                | (free & at_source) * virtual_source
                | (free & at_sink) * virtual_sink
            )
