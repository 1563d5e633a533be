"""Frames that are nearly the same image, to be kept in one set of a split."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cm_lightning.data.resampling import resample


def near_duplicate_groups(images: list[NDArray[np.generic]], correlation: float = 0.9, side: int = 32) -> list[int]:
    """Group images whose small versions correlate strongly.

    Frames of one sweep, or of one patient seconds apart, are not independent: one in training and one in testing
    makes a result too good. Groups are the connected components of "correlates by more than ``correlation``".

    Args:
        images: 2D images of any sizes.
        correlation: Pearson correlation from which two images count as near-duplicates.
        side: Images are compared at ``side x side`` pixels.

    Returns:
        Group number of every image, counted from 0 in order of first appearance.
    """
    small = np.stack([resample(image, (side, side), "linear").numpy().ravel() for image in images])
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    first, second = np.nonzero(small @ small.T > correlation)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(images), len(images)))
    labels = connected_components(graph, directed=False)[1]
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return [order[label] for label in labels.tolist()]
