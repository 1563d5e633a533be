"""Envelope of radio-frequency (RF) lines."""

from typing import Any

from cm_lightning.confidence.arrays import array_namespace

# A NumPy or CuPy array.
Array = Any


def envelope(lines: Array) -> Array:
    """Compute the envelope of RF lines: the magnitude of the analytic signal along depth.

    Args:
        lines: RF lines, float64, ``(..., depth, lateral)``.

    Returns:
        Envelope, ``(..., depth, lateral)``.

    References:
        Marple, "Computing the discrete-time 'analytic' signal via FFT", IEEE Transactions on Signal Processing 1999.
    """
    xp = array_namespace(lines)
    if lines.ndim > 2:
        # Frames are transformed one by one, because the result of an FFT may depend on the number of frames.
        return xp.stack([envelope(frame) for frame in lines])
    spectrum = xp.fft.fft(lines, axis=0)
    depth = len(lines)
    spectrum[1 : (depth + 1) // 2] *= 2.0
    spectrum[depth // 2 + 1 :] = 0.0
    return xp.abs(xp.fft.ifft(spectrum, axis=0))
