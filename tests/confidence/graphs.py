"""Random linear systems with weights of very different sizes."""

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph


def random_graph(rng, shape, decades):
    """Return a system with random weights between ``10**-decades`` and 1."""
    depth, lateral = shape

    def weights(*size):
        return 10 ** (-decades * rng.random(size))

    slack = np.zeros(shape)
    slack[0] = weights(lateral)
    right = slack.copy()
    slack[-1] += weights(lateral)
    return RandomWalkGraph(
        weights(depth - 1, lateral),
        weights(depth, lateral - 1),
        weights(depth - 1, lateral - 1),
        weights(depth - 1, lateral - 1),
        slack,
        np.ones(shape, dtype=bool),
        right,
    )
