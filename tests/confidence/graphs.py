"""Systems that no frame has: weights of any size."""

import numpy as np

from cm_lightning.confidence.graph import RandomWalkGraph


def random_graph(rng, shape, decades):
    """Weights of any size between 1 and 10 to the minus ``decades``."""
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
