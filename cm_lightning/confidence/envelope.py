"""The envelope of radio-frequency lines."""

from typing import Any

from cm_lightning.confidence.arrays import array_namespace

# A NumPy or CuPy array.
Array = Any


def envelope(lines: Array) -> Array:
    """Take the magnitude of the analytic signal along depth.

    The analytic signal has the spectrum of the lines, twice its positive and none of its negative frequencies (Marple
    1999: Computing the discrete-time analytic signal via FFT).

    Args:
        lines: Radio-frequency lines, float64, ``(..., depth, lateral)``.

    Returns:
        The envelope, same shape.
    """
    xp = array_namespace(lines)
    if lines.ndim > 2:
        # One frame at a time: how a transform is computed may depend on how many there are, and a frame's map must not.
        return xp.stack([envelope(frame) for frame in lines])
    spectrum = xp.fft.fft(lines, axis=0)
    depth = len(lines)
    spectrum[1 : (depth + 1) // 2] *= 2.0
    spectrum[depth // 2 + 1 :] = 0.0
    return xp.abs(xp.fft.ifft(spectrum, axis=0))
