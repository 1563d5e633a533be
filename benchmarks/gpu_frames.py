"""Frames and masks for the GPU benchmark, from NumPy and SciPy only."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Masks = dict[str, NDArray[np.bool_]]


def speckle(count: int, depth: int, lateral: int, seed: int = 0) -> NDArray[np.float32]:
    """Simulate frames with speckle, a layer and inclusions, as whole numbers from 0 to 255.

    Up to eight frames are simulated. They are repeated, mirrored and with other gains, for larger numbers.

    Args:
        count: Number of frames.
        depth: Number of rows.
        lateral: Number of columns.
        seed: Seed of the random numbers.

    Returns:
        Frames, ``(count, depth, lateral)``.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((depth, lateral)) / np.array([depth, lateral])[:, None, None]
    simulated = []
    for _ in range(min(count, 8)):
        field = rng.standard_normal((2, depth, lateral))
        amplitude = np.hypot(*(ndimage.gaussian_filter(part, (0.8, 1.6)) for part in field))
        for _ in range(4):
            centre, radius = rng.random(2), 0.05 + 0.1 * rng.random()
            amplitude[np.hypot(rows - centre[0], columns - centre[1]) < radius] *= rng.choice([0.2, 3.0])
        amplitude[np.abs(rows - 0.4 - 0.1 * np.sin(3 * columns + rng.random())) < 0.02] *= 6.0
        decibels = 20 * np.log10(amplitude / amplitude.max() + 1e-4) - 15 * rows
        simulated.append(np.clip(255 * (1 + decibels / 60), 0, 255).round())
    frames = np.empty((count, depth, lateral), np.float32)
    for index in range(count):
        frame = simulated[index % len(simulated)][:, :: -1 if (index // len(simulated)) % 2 else 1]
        frames[index] = np.floor(frame * (1 - 0.001 * (index // len(simulated))))
    return frames


def masks_for(kind: str, count: int, depth: int, lateral: int, seed: int = 0) -> Masks:
    """Create one domain, source and sink for each frame, as the data module does for training.

    Args:
        kind: ``no mask``; ``band`` or ``fan`` for masks that are the same for all frames; ``moving band`` or ``moving
            fan`` for masks whose edges differ by up to three pixels.
        count: Number of frames.
        depth: Number of rows.
        lateral: Number of columns.
        seed: Seed of the random numbers.

    Returns:
        Keyword arguments of the solver, ``(count, depth, lateral)`` each.
    """
    if kind == "no mask":
        return {}
    rng = np.random.default_rng(seed)
    moves = rng.integers(4, size=(count, 4)) if kind.startswith("moving") else np.zeros((count, 4), int)
    create = band if kind.endswith("band") else fan
    masks: dict[tuple[int, ...], Masks] = {}
    for move in map(tuple, moves.tolist()):
        if move not in masks:
            masks[move] = create(depth, lateral, *move)
    return {
        name: np.stack([masks[move][name] for move in map(tuple, moves.tolist())])
        for name in ("domain", "source", "sink")
    }


def band(depth: int, lateral: int, top: int, bottom: int, left: int, right: int) -> Masks:
    """Return the masks of a linear probe: a rectangle, whose edges are moved inwards by some pixels."""
    first, last = depth // 50 + top, depth - depth // 50 - bottom
    columns = slice(lateral // 20 + left, lateral - lateral // 20 - right)
    masks = {name: np.zeros((depth, lateral), bool) for name in ("domain", "source", "sink")}
    masks["domain"][first:last, columns] = masks["source"][first, columns] = masks["sink"][last - 1, columns] = True
    return masks


def fan(depth: int, lateral: int, top: int, bottom: int, left: int, right: int) -> Masks:
    """Return the masks of a convex probe: a part of a ring, whose edges are moved inwards by some pixels."""
    rows, columns = np.indices((depth, lateral))
    apex = depth / 3
    radius = np.hypot(rows + apex, columns - lateral / 2)
    reach = (rows + apex) * (lateral / 2) / (depth + apex)
    inner, outer = apex + depth / 12 + top, depth + apex - 1 - bottom
    domain = (columns - lateral / 2 > left - reach) & (columns - lateral / 2 < reach - right)
    domain &= (radius > inner) & (radius < outer)
    return {"domain": domain, "source": domain & (radius < inner + 1.5), "sink": domain & (radius > outer - 1.5)}
