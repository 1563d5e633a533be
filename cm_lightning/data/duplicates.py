"""Groups of near-duplicate images, which must be in the same set of a split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cm_lightning.data.resampling import resample

# Minimum Pearson correlation of near-duplicates, and side length in pixels of the thumbnails that are compared.
CORRELATION = 0.9
SIDE = 32


def near_duplicate_groups(images: list[NDArray[np.generic]], correlation: float = CORRELATION) -> list[int]:
    """Group images with strongly correlated thumbnails.

    Frames of one sweep, or of one patient at almost the same time, are not independent. Results are too optimistic if
    some of them are in the training set and others in the test set. Groups are connected components of the graph of
    pairs of images with a high correlation.

    Args:
        images: Images, ``(depth, lateral)`` each, which may differ in size.
        correlation: Minimum Pearson correlation of near-duplicates.

    Returns:
        Number of the group of every image, from 0 in order of first appearance.
    """
    return group_thumbnails([thumbnail(image) for image in images], correlation)


def thumbnail(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the thumbnail by which an image is compared with others.

    Args:
        image: Image, ``(depth, lateral)``.

    Returns:
        Pixels with the mean 0 and the norm 1 (0 for a constant image), ``(SIDE * SIDE,)``.
    """
    small: NDArray[np.float32] = resample(image, (SIDE, SIDE), "linear").numpy().ravel()
    small -= small.mean()
    small /= max(float(np.linalg.norm(small)), float(np.finfo(np.float32).tiny))
    return small


def group_thumbnails(thumbnails: Sequence[NDArray[np.float32]], correlation: float = CORRELATION) -> list[int]:
    """Group images with strongly correlated thumbnails; see :func:`near_duplicate_groups`.

    Args:
        thumbnails: Thumbnails by :func:`thumbnail`.
        correlation: Minimum Pearson correlation of near-duplicates.

    Returns:
        Number of the group of every image, from 0 in order of first appearance.
    """
    small = np.stack(thumbnails)
    first, second = np.nonzero(small @ small.T > correlation)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(small), len(small)))
    labels = connected_components(graph, directed=False)[1]
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return [order[label] for label in labels.tolist()]


def insonified_part(frame: NDArray[np.generic], inside: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Return the smallest rectangle of a frame that contains its insonified region.

    Args:
        frame: Frame, ``(depth, lateral)``.
        inside: Insonified pixels, ``(depth, lateral)``.

    Returns:
        Copy of the part; the frame itself if the region is empty.
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return frame
    part: NDArray[np.generic] = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return part
