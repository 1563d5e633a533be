"""Source and sink of random walks."""

import numpy as np

from cm_lightning.confidence import column_sink, column_source


def test_source_and_sink_are_the_ends_of_columns():
    domain = np.array([[0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(np.argwhere(column_source(domain)), [[0, 1], [1, 0], [1, 3]])
    np.testing.assert_array_equal(np.argwhere(column_sink(domain)), [[1, 3], [3, 0], [3, 1]])
