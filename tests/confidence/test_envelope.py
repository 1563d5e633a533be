"""Envelope of RF lines, compared with SciPy."""

import numpy as np
import pytest
from scipy.signal import hilbert

from cm_lightning.confidence.envelope import envelope


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 61, 100])
def test_envelope_equals_scipy_in_all_batches(rng, depth):
    lines = rng.standard_normal((3, depth, 7))
    result = envelope(lines)
    np.testing.assert_allclose(result, np.abs(hilbert(lines, axis=1)), rtol=0, atol=1e-13)
    for index in range(3):
        np.testing.assert_array_equal(result[index], envelope(lines[index]))
