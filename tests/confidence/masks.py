"""Masks of different kinds."""

import numpy as np

from cm_lightning.confidence import column_sink, column_source


def masks_of(kind, shape, rng):
    """Return masks as keyword arguments."""
    depth, lateral = shape
    rows, columns = np.indices(shape)
    match kind:
        case "band":
            return {"domain": (columns >= lateral // 5) & (columns < lateral - lateral // 4) & (rows > 2)}
        case "fan":
            radius = np.hypot(rows + depth // 3, columns - lateral / 2)
            angle = np.abs(np.arctan2(columns - lateral / 2, rows + depth // 3))
            domain = (angle < 0.5) & (radius > depth // 3) & (radius < 1.2 * depth)
            return {"domain": domain, "source": radius < depth // 3 + 2, "sink": radius > 1.2 * depth - 2}
        case "parts":
            return {"domain": rng.random(shape) < 0.4}
        case "one side without source":
            domain = columns != lateral // 2
            source = column_source(domain) & (columns < lateral // 2)
            return {"domain": domain, "source": source, "sink": column_sink(domain) & (columns % 2 == 0)}
    raise AssertionError(kind)
