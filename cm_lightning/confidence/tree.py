"""Elimination tree of a grid: nested dissection into leaves, for any leaf size.

A rectangle of pixels is bisected by a line of pixels (separator) that is one pixel wide. Since no edge of the
8-neighbour graph crosses it, both halves can be eliminated independently before the line itself. Recursive bisection
results in a tree of rectangles, whose leaves are not bisected.

This is the multifrontal method (Duff and Reid). The pixels of a node are its pivots, which are eliminated with it (the
pixels of its line, or all pixels of a leaf), followed by its ring: the pixels around its rectangle, which are
eliminated later. Pivots and ring are each sorted by the order of elimination. The front of a node is the matrix of the
weights between these pixels. Its update is what the elimination of the pivots leaves of the front on the ring, and is
added to the front of the parent. The two halves of a rectangle are its children in the tree.

All ranges, such as the rows of a rectangle, are given by their first index and their end, which is not part of them.

References:
    George, "Nested dissection of a regular finite element mesh", SIAM Journal on Numerical Analysis 1973.
    Duff and Reid, "The multifrontal solution of indefinite sparse symmetric linear equations", ACM Transactions on
    Mathematical Software 1983.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[Any]


class Tree(NamedTuple):
    """Rectangles of pixels in the order of their elimination: halves come before their parent.

    Attributes:
        rectangles: First row, end row, first column and end column of each node, ``(nodes, 4)``.
        lines: The same for its line; for a leaf, this is its rectangle.
        halves: Nodes of both halves, -1 for an empty half and for leaves, ``(nodes, 2)``.
        leaves: Number of leaves of each subtree, ``(nodes,)``.
    """

    rectangles: Integers
    lines: Integers
    halves: Integers
    leaves: Integers


@njit(cache=True, nogil=True)
def grow_tree(top: int, bottom: int, left: int, right: int, leaf: int) -> Tree:
    """Bisect a rectangle into leaves.

    Lines are ``leaf + 1`` pixels apart, the first possible one ``leaf`` pixels from the start of the rectangle, so that
    all leaves have the same size except for those at the lower and right border.

    Args:
        top: First row.
        bottom: End of the rows.
        left: First column.
        right: End of the columns.
        leaf: Maximum side length of a leaf in pixels.

    Returns:
        The tree, with the rectangle as its last node.
    """
    pitch = leaf + 1
    capacity = 2 * ((bottom - top) // pitch + 1) * ((right - left) // pitch + 1)
    rectangles = np.empty((capacity, 4), np.int64)
    lines = np.empty((capacity, 4), np.int64)
    halves = np.empty((capacity, 2), np.int64)
    leaves = np.zeros(capacity, np.int64)
    nodes = 0
    # Depth-first search. An entry of the stack consists of a rectangle, the number of its finished halves (-1 for a new
    # rectangle), the position of its line, whether this is a row, and the results of its halves.
    stack = np.empty((128, 9), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = top, bottom, left, right, -1
    size = 1
    result = -1
    while size > 0:
        entry = stack[size - 1]
        high, wide = entry[1] - entry[0], entry[3] - entry[2]
        if high <= 0 or wide <= 0:
            result = -1
            size -= 1
            continue
        if high <= leaf and wide <= leaf:
            for side in range(4):
                rectangles[nodes, side] = lines[nodes, side] = entry[side]
            halves[nodes, 0] = halves[nodes, 1] = -1
            leaves[nodes] = 1
            result = nodes
            nodes += 1
            size -= 1
            continue
        if entry[4] < 0:
            entry[6] = high >= wide
            entry[5] = (entry[0] if entry[6] else entry[2]) + _middle_line(high if entry[6] else wide, leaf)
        else:
            entry[7 + entry[4]] = result
        entry[4] += 1
        first = 0 if entry[6] else 2
        if entry[4] < 2:
            half = stack[size]
            for side in range(4):
                half[side] = entry[side]
            half[4] = -1
            half[first + 1 - entry[4]] = entry[5] + entry[4]
            size += 1
            continue
        for side in range(4):
            rectangles[nodes, side] = lines[nodes, side] = entry[side]
        lines[nodes, first] = entry[5]
        lines[nodes, first + 1] = entry[5] + 1
        for index in range(2):
            half_node = entry[7 + index]
            halves[nodes, index] = half_node
            if half_node >= 0:
                leaves[nodes] += leaves[half_node]
        result = nodes
        nodes += 1
        size -= 1
    return Tree(rectangles[:nodes], lines[:nodes], halves[:nodes], leaves[:nodes])


@njit(cache=True, nogil=True)
def _middle_line(length: int, leaf: int) -> int:
    """Return the position of the line that is closest to the middle of a side."""
    pitch = leaf + 1
    lines = length // pitch
    nearest = ((length - 1) // 2 - leaf + pitch // 2) // pitch
    return leaf + pitch * min(max(nearest, 0), lines - 1)


class NodePixels(NamedTuple):
    """Pixels of the nodes of a tree, as row-major indices of a grid.

    Attributes:
        pixels: Pixels of all nodes: the pivots and the ring of each node, ``(total,)``.
        start: Index in ``pixels`` of the first pixel of each node, followed by the length of ``pixels``, ``(nodes +
            1,)``.
        pivots: Number of pivots of each node, ``(nodes,)``.
    """

    pixels: Integers
    start: Integers
    pivots: Integers


def list_pixels(tree: Tree, depth: int, lateral: int) -> NodePixels:
    """List the pixels of the nodes of a tree.

    Args:
        tree: Tree of a rectangle of the grid.
        depth: Number of rows of the grid.
        lateral: Number of columns of the grid.

    Returns:
        The pixels of every node. Pixels around the rectangle of the tree are not eliminated, and come last: the rows
        above it, the rows below it (both over all columns), and the columns to the left and to the right of it.
    """
    top, bottom, left, right = tree.rectangles.T
    high = np.minimum(bottom + 1, depth) - np.maximum(top - 1, 0)
    wide = np.minimum(right + 1, lateral) - np.maximum(left - 1, 0)
    ring = high * wide - (bottom - top) * (right - left)
    top, bottom, left, right = tree.lines.T
    pivots = (bottom - top) * (right - left)
    start = np.concatenate([[0], np.cumsum(pivots + ring)])
    rank, in_order = np.empty((depth, lateral), np.int64), np.empty(depth * lateral, np.int64)
    ranks = np.empty(start[-1], np.int64)
    _list_ranks(tree, rank, in_order, ranks)
    # All pixels are sorted at once, by node and rank. Pivots are eliminated before the ring of their node.
    node = np.repeat(np.arange(len(pivots)), pivots + ring)
    ranks += node * len(in_order)
    ranks.sort()
    return NodePixels(in_order[ranks - node * len(in_order)], start, pivots)


@njit(cache=True, nogil=True)
def _list_ranks(tree: Tree, rank: Integers, in_order: Integers, ranks: Integers) -> None:
    """List the positions of the pixels of every node in the order of elimination.

    Args:
        tree: The tree.
        rank: Output, position of every pixel in the order of elimination, ``(depth, lateral)``.
        in_order: Output, pixels in the order of elimination, ``(pixels,)``.
        ranks: Output, positions of the pixels of every node, ``(total,)``.
    """
    depth, lateral = rank.shape
    nodes = len(tree.rectangles)
    count = 0
    for node in range(nodes):
        top, bottom, left, right = tree.lines[node]
        count = _number_pixels(top, bottom, left, right, rank, in_order, count)
    top, bottom, left, right = tree.rectangles[nodes - 1]
    count = _number_pixels(0, top, 0, lateral, rank, in_order, count)
    count = _number_pixels(bottom, depth, 0, lateral, rank, in_order, count)
    count = _number_pixels(top, bottom, 0, left, rank, in_order, count)
    count = _number_pixels(top, bottom, right, lateral, rank, in_order, count)
    position = 0
    for node in range(nodes):
        top, bottom, left, right = tree.lines[node]
        for row in range(top, bottom):
            for column in range(left, right):
                ranks[position] = rank[row, column]
                position += 1
        top, bottom, left, right = tree.rectangles[node]
        for row in range(max(top - 1, 0), min(bottom + 1, depth)):
            inside = top <= row < bottom
            for column in range(max(left - 1, 0), min(right + 1, lateral)):
                if not (inside and left <= column < right):
                    ranks[position] = rank[row, column]
                    position += 1


@njit(cache=True, nogil=True)
def _number_pixels(top: int, bottom: int, left: int, right: int, rank: Integers, in_order: Integers, count: int) -> int:
    """Append the pixels of a rectangle to the order of elimination; return the number of pixels so far."""
    for row in range(top, bottom):
        for column in range(left, right):
            rank[row, column] = count
            in_order[count] = row * rank.shape[1] + column
            count += 1
    return count


@njit(cache=True, nogil=True)
def append_runs(ring: Integers, position: Integers, slack: int, runs: Integers, count: int) -> int:
    """Append the runs of pixels that are consecutive in the ring of a half and in the pixels of its parent.

    Args:
        ring: Pixels of the ring of the half; pixels that are not in the parent are ignored.
        position: Index of each pixel of the grid in the pixels of the parent, -1 if it is not among them.
        slack: Column of the slack in the parent, which is then appended to the ring as its last entry; -1 to leave it
            out.
        runs: Output, table of runs: index in the ring, index in the parent, length, ``(runs, 3)``.
        count: Number of runs so far.

    Returns:
        Number of runs.
    """
    first = count
    for index in range(len(ring) + (slack >= 0)):
        target = position[ring[index]] if index < len(ring) else slack
        if target < 0:
            continue
        if (
            count > first
            and runs[count - 1, 0] + runs[count - 1, 2] == index
            and (runs[count - 1, 1] + runs[count - 1, 2] == target)
        ):
            runs[count - 1, 2] += 1
        else:
            runs[count, 0] = index
            runs[count, 1] = target
            runs[count, 2] = 1
            count += 1
    return count
