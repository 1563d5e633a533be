"""Compiled functions that find the shapes of masks in one pass over their pixels."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Integers = NDArray[Any]


@njit(cache=True, nogil=True)
def scan_masks(
    domain: BoolArray,
    first_rows: Integers,
    last_rows: Integers,
    boxes: Integers,
    connected: BoolArray,
) -> None:
    """Find the bounding boxes of masks, their first and last pixels in columns, and which masks are connected.

    Args:
        domain: Masks, ``(masks, depth, lateral)``.
        first_rows: Output, initially -1: first row of each column, ``(masks, lateral)``.
        last_rows: Output, initially -1: last row of each column, ``(masks, lateral)``.
        boxes: Output, initially 0: first row, end row, first column and end column of each mask, ``(masks, 4)``.
        connected: Output, initially False: whether a mask is certainly connected, ``(masks,)``: in each column (or in
            each row), it is an interval that touches those of the adjacent columns (or rows).
    """
    masks, depth, lateral = domain.shape
    first_columns, last_columns, in_row = (
        np.empty(depth, np.int64),
        np.empty(depth, np.int64),
        np.empty(depth, np.int64),
    )
    in_column = np.empty(lateral, np.int64)
    for mask in range(masks):
        in_column[:] = 0
        for row in range(depth):
            first, last, count = -1, -1, 0
            for column in range(lateral):
                if domain[mask, row, column]:
                    if count == 0:
                        first = column
                    last = column
                    count += 1
                    if in_column[column] == 0:
                        first_rows[mask, column] = row
                    last_rows[mask, column] = row
                    in_column[column] += 1
            first_columns[row], last_columns[row], in_row[row] = first, last, count
        rows, columns = np.flatnonzero(in_row), np.flatnonzero(in_column)
        if len(rows) == 0:
            continue
        boxes[mask, 0], boxes[mask, 1] = rows[0], rows[-1] + 1
        boxes[mask, 2], boxes[mask, 3] = columns[0], columns[-1] + 1
        connected[mask] = _are_touching_intervals(first_columns, last_columns, in_row) or _are_touching_intervals(
            first_rows[mask], last_rows[mask], in_column
        )


@njit(cache=True, nogil=True)
def _are_touching_intervals(first: Integers, last: Integers, count: Integers) -> bool:
    """Return whether the pixels of all lines that are not empty are intervals that touch those of adjacent lines."""
    previous = -1
    for line in range(len(first)):
        if count[line] == 0:
            continue
        if last[line] - first[line] + 1 != count[line]:
            return False
        if previous >= 0 and (
            previous + 1 < line or first[line] > last[previous] + 1 or last[line] < first[previous] - 1
        ):
            return False
        previous = line
    return True
