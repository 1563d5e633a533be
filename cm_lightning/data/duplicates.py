"""Groups of near-duplicate images, which must be in the same set of a split."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cm_lightning.data.resampling import resample


def near_duplicate_groups(images: list[NDArray[np.generic]], correlation: float = 0.9, side: int = 32) -> list[int]:
    """Group images with strongly correlated thumbnails.

    Frames of one sweep, or of one patient at almost the same time, are not independent. Results are too optimistic if
    some of them are in the training set and others in the test set. Groups are connected components of the graph of
    pairs of images with a high correlation.

    Args:
        images: Images, ``(depth, lateral)`` each, which may differ in size.
        correlation: Minimum Pearson correlation of near-duplicates.
        side: Side length in pixels of the thumbnails that are compared.

    Returns:
        Number of the group of every image, from 0 in order of first appearance.
    """
    small = np.stack([resample(image, (side, side), "linear").numpy().ravel() for image in images])
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    first, second = np.nonzero(small @ small.T > correlation)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(images), len(images)))
    labels = connected_components(graph, directed=False)[1]
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return [order[label] for label in labels.tolist()]
