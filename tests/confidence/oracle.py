"""Independent, short and slow implementation of the random walk with a dense matrix."""

import itertools

import numpy as np
from scipy import ndimage


def dense_map(frame, domain=None, *, alpha, beta, gamma, formulation="reference", fixed=False):
    """Compute the map of one small frame, with the conventions of ConfidenceMapSolver."""
    frame = np.asarray(frame, dtype=float)
    inside = np.ones(frame.shape, bool) if domain is None else np.asarray(domain, bool)
    result = np.zeros(frame.shape)
    if not inside.any():
        return result
    rows = np.flatnonzero(inside.any(axis=1))
    low, high = frame[inside].min(), frame[inside].max()
    g = frame if fixed else (frame - low) / ((high - low) or 1)
    depth = (np.arange(frame.shape[0]) - rows[0]) / max(rows[-1] - rows[0], 1)
    decay = np.exp(-alpha * depth)[:, None]
    g = g * (decay if formulation == "paper" else 1 - decay)

    edges = {}
    for (i, j), (down, right) in itertools.product(np.argwhere(inside), [(1, 0), (0, 1), (1, 1), (1, -1)]):
        k, m = i + down, j + right
        if k < frame.shape[0] and 0 <= m < frame.shape[1] and inside[k, m]:
            edges[(i, j), (k, m)] = abs(g[i, j] - g[k, m]), abs(right) + abs(down) * abs(right)
    diagonal = {"reference": 1, "paper": np.sqrt(2), "realtime": np.sqrt(2)}[formulation]
    penalty = {0: 0.0, 1: gamma, 2: diagonal * gamma}
    steps = {pair: step for pair, (step, _) in edges.items()}
    rescale = formulation == "reference" and not fixed
    if rescale:
        steps = _over_largest(steps)
    steps = {pair: step + penalty[edges[pair][1]] for pair, step in steps.items()}
    if rescale:
        steps = _over_largest(steps)
    floor = {"reference": 1e-5, "paper": 0.0, "realtime": 1e-4}[formulation]

    pixels = [tuple(pixel) for pixel in np.argwhere(inside)]
    number = {pixel: index for index, pixel in enumerate(pixels)}
    matrix, right_side = np.zeros((len(pixels), len(pixels))), np.zeros(len(pixels))
    for (a, b), step in steps.items():
        weight = np.exp(-beta * step) + floor
        for p, q in ((number[a], number[b]), (number[b], number[a])):
            matrix[p, p] += weight
            matrix[p, q] -= weight
    columns = {j: [i for i, jj in pixels if jj == j] for j in {j for _, j in pixels}}
    sources = [number[min(rows), j] for j, rows in columns.items()]
    sinks = [number[max(rows), j] for j, rows in columns.items()]
    if formulation == "realtime":
        for p in sources:
            matrix[p, p] += 1
            right_side[p] += 1
        for p in sinks:
            matrix[p, p] += 1
    else:
        for p, value in [(p, 0.0) for p in sinks] + [(p, 1.0) for p in sources]:
            matrix[p] = 0
            matrix[p, p] = 1
            right_side[p] = value
    parts, count = ndimage.label(inside, np.ones((3, 3)))
    for part in range(1, count + 1):
        members = [number[tuple(pixel)] for pixel in np.argwhere(parts == part)]
        if not set(members) & set(sources) or not set(members) & set(sinks):
            for p in members:
                result[pixels[p]] = float(bool(set(members) & set(sources)))
            continue
        solution = np.linalg.solve(matrix[np.ix_(members, members)], right_side[members])
        for p, value in zip(members, solution, strict=True):
            result[pixels[p]] = value
    return result


def _over_largest(steps):
    largest = max(steps.values(), default=0)
    return {pair: step / largest for pair, step in steps.items()} if largest > 0 else steps
