"""Statistics of large arrays, in parts that need little memory."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cm_lightning.inspection.findings import Intensities, Value

# Number of voxels that are processed at once.
PART = 2**22
# Number of voxels from which percentiles are estimated, if the type has more than 16 bits.
SAMPLE = 2**20
# A label with more values is no label, for example because it was compressed as JPEG.
MAX_VALUES = 256


def parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array in parts along its last axis."""
    step = max(1, PART // max(1, array[..., 0].size))
    for start in range(0, array.shape[-1], step):
        yield array[..., start : start + step]


def measure_intensities(array: NDArray[Any]) -> tuple[Intensities, str]:
    """Measure the intensities of an image, and compute the digest of its pixels.

    Args:
        array: Image of any real type, which is not empty.

    Returns:
        The intensities, and a digest that is equal for equal pixels, types and shapes.
    """
    digest = blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    is_small = array.dtype.kind in "bui" and array.dtype.itemsize <= 2
    lowest = int(np.iinfo(array.dtype).min) if is_small and array.dtype.kind != "b" else 0
    histogram = np.zeros(2 ** (8 * array.dtype.itemsize) if is_small else 0, np.int64)
    total, count, minimum, maximum, is_finite = 0.0, 0, np.inf, -np.inf, True
    for part in parts(array):
        values = np.asarray(part, order="F").ravel(order="F")
        digest.update(values.view(np.uint8).data)
        if is_small:
            histogram += np.bincount(values.astype(np.int64) - lowest, minlength=len(histogram))
            continue
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            is_finite = False
            values = values[np.isfinite(values)]
        if len(values):
            total += float(values.sum(dtype=np.float64))
            count += len(values)
            minimum, maximum = min(minimum, float(values.min())), max(maximum, float(values.max()))
    fractions = np.array([0.01, 0.5, 0.99])
    if is_small:
        levels, running = np.arange(len(histogram)) + lowest, histogram.cumsum()
        present = levels[histogram > 0]
        percentiles = levels[np.searchsorted(running, fractions * running[-1])]
        mean = float(levels @ histogram / running[-1])
        minimum, maximum = float(present[0]), float(present[-1])
    else:
        sample = np.asarray(array[_sample_step(array)], np.float64).ravel()
        sample = sample[np.isfinite(sample)]
        percentiles = np.quantile(sample, fractions) if len(sample) else np.full(3, np.nan)
        mean = total / count if count else float("nan")
    low, median, high = (float(value) for value in percentiles)
    return Intensities(minimum, low, median, high, maximum, mean, is_finite), digest.hexdigest()


def count_values(label: NDArray[Any]) -> dict[Value, int] | None:
    """Count the voxels of every value of a label.

    Args:
        label: Label of any real type.

    Returns:
        Number of voxels by value, in ascending order, in which whole numbers are integers; None if there are more than
        ``MAX_VALUES`` values.
    """
    counts: dict[float, int] = {}
    for part in parts(label):
        if label.dtype == np.uint8:
            numbers = np.bincount(part.ravel(order="K"), minlength=256)
            found = np.flatnonzero(numbers)
            numbers = numbers[found]
        else:
            found, numbers = np.unique(part, return_counts=True)
        for value, number in zip(found.tolist(), numbers.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + number
        if len(counts) > MAX_VALUES:
            return None
    return {(int(value) if value == value // 1 else value): counts[value] for value in sorted(counts)}


def _sample_step(array: NDArray[Any]) -> tuple[slice, ...]:
    """Return an index that leaves about ``SAMPLE`` voxels."""
    step = max(1, int((array.size / SAMPLE) ** (1 / array.ndim)))
    return (slice(None, None, step),) * array.ndim
