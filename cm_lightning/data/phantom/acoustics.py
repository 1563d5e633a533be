"""From a body to the picture that a scanner makes of it.

A linear, narrow-band model at complex baseband: random scatterers times echogenicity, convolved with a point spread
function that widens away from the focus; attenuated on the way there and back, partly undone by the time gain; plus
specular echoes where an interface faces the beam, and electronic noise. Its magnitude is the envelope, and fully
developed speckle in it is Rayleigh distributed (mean / standard deviation = 1.91).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cm_lightning.data.phantom.anatomy import TISSUES, FloatArray, Structure, Wave

FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
BACKGROUND = "skin"


@dataclass(frozen=True)
class Scanner:
    """Settings of the simulated scanner.

    Attributes:
        frequency: Centre frequency in MHz.
        axial_fwhm: Axial resolution in mm.
        lateral_fwhm: Lateral resolution in mm at the focus.
        elevational_fwhm: Slice thickness in mm at the focus.
        focus: Focal depth as a share of the imaged depth.
        time_gain: Share of the mean tissue's attenuation that the time gain makes up for.
        noise: Electronic noise in dB below the echo of bright tissue at the skin.
        dynamic_range: Range in dB that the grey values show.
    """

    frequency: float = 6.0
    axial_fwhm: float = 0.4
    lateral_fwhm: float = 0.8
    elevational_fwhm: float = 1.6
    focus: float = 0.45
    time_gain: float = 0.75
    noise: float = -66.0
    dynamic_range: float = 60.0


@dataclass(frozen=True)
class BeamGrid:
    """Samples along the beams of a sweep.

    Attributes:
        step: Axial distance of samples in mm.
        pitch: Distance of neighbouring beams in mm at every sample, ``(samples,)``; constant for a linear probe.
        elevation_step: Distance of frames in mm.
        shape: Number of samples, beams and frames.
    """

    step: float
    pitch: FloatArray
    elevation_step: float
    shape: tuple[int, int, int]


def receive(
    structures: list[Structure], grid: BeamGrid, scanner: Scanner, generator: np.random.Generator
) -> NDArray[np.complex64]:
    """Simulate the baseband echo of a body.

    Args:
        structures: The body at the samples of ``grid``, outermost first.
        grid: The samples.
        scanner: The scanner's settings.
        generator: Source of scatterers, strands, drop-outs, poor contact and noise.

    Returns:
        Complex echo of shape ``grid.shape``, after time gain.
    """
    echogenicity, attenuation, streaks = _tissue_maps(structures, grid.shape)
    echogenicity += streaks * _strands(grid, generator) + _mottle(grid, generator)
    amplitude = 10 ** (echogenicity / 20)
    echo = _complex_noise(grid.shape, generator) * amplitude
    mirror, transmitted = _interfaces(structures, grid, generator)
    echo += mirror
    lost = np.cumsum(2 * scanner.frequency * attenuation * (grid.step / 10), axis=0)
    lost += np.cumsum(transmitted, axis=0)
    lost += _poor_contact(grid, generator)
    echo *= 10 ** (-lost / 20)
    echo = _blur(echo, grid, scanner)
    echo += 10 ** (scanner.noise / 20) * _complex_noise(grid.shape, generator)
    mean_attenuation = scanner.time_gain * 0.55
    gain = 2 * scanner.frequency * mean_attenuation * np.arange(grid.shape[0]) * grid.step / 10
    return echo * (10 ** (gain / 20)).astype(np.float32)[:, None, None]


def log_compress(envelope: FloatArray, dynamic_range: float) -> NDArray[np.uint8]:
    """Show an envelope as grey values, ``dynamic_range`` dB from 0 to 255.

    White is 6 dB above the 99.8th percentile, so that tissue lies in the lower half, as on a scanner.
    """
    decibel = 20 * np.log10(np.maximum(envelope, np.finfo(np.float32).tiny))
    decibel -= np.percentile(decibel, 99.8) + 6.0
    return np.round(255 * np.clip(1 + decibel / dynamic_range, 0, 1)).astype(np.uint8)


def _tissue_maps(structures: list[Structure], shape: tuple[int, int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Paint the structures over each other: echogenicity (dB), attenuation (dB / cm / MHz), strand contrast (dB)."""
    index = np.zeros(shape, dtype=np.uint8)
    names = [BACKGROUND]
    for structure in structures:
        names.append(structure.tissue)
        np.copyto(index, len(names) - 1, where=structure.distance < 0)
    table = np.array(
        [[TISSUES[n].echogenicity, TISSUES[n].attenuation, TISSUES[n].streaks] for n in names], dtype=np.float32
    )
    return table[index, 0], table[index, 1], table[index, 2]


def _strands(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Sparse bright strands across the beam, in [0, 1], as perimysium shows in a muscle's cross-section."""
    samples, beams, frames = grid.shape
    coarse = (max(samples // 2, 1), max(beams // 2, 1), frames)
    noise = generator.standard_normal(coarse, dtype=np.float32)
    axial, lateral, elevational = _steps(grid)
    sigma = (0.22 / (2 * axial), 1.6 / (2 * lateral), 2.5 / elevational)
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    noise /= noise.std()
    strands = np.clip((noise - 0.9) / 1.6, 0, 1)
    for axis in (0, 1):
        strands = np.repeat(strands, 2, axis=axis)
    pad = [(0, size - have) for size, have in zip(grid.shape, strands.shape, strict=True)]
    padded: FloatArray = np.pad(strands, pad, mode="edge")
    return padded


def _mottle(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Regional differences of echogenicity in dB (SD 1.5), a centimetre across."""
    size = [max(2, round(n * step / 8.0)) for n, step in zip(grid.shape, _steps(grid), strict=True)]
    coarse = generator.normal(0, 1.5, size).astype(np.float32)
    zoomed: FloatArray = ndimage.zoom(
        coarse, [n / c for n, c in zip(grid.shape, size, strict=True)], order=1, mode="nearest", grid_mode=True
    )
    return zoomed


def _interfaces(
    structures: list[Structure], grid: BeamGrid, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Specular echoes (amplitude), and the loss in dB that every sample of an interface causes below it.

    An interface echoes where it faces the beam, and drops out in smooth patches that become more frequent with depth.
    """
    samples, beams, frames = grid.shape
    lateral = (np.arange(beams, dtype=np.float32) * _steps(grid)[1])[None, :, None]
    elevation = (np.arange(frames, dtype=np.float32) * grid.elevation_step)[None, None, :]
    share = np.linspace(0, 1, samples, dtype=np.float32)[:, None, None]
    # Fascia is rough: its echo varies along it like fine speckle.
    rough = np.abs(_complex_noise((1, beams, frames), generator))
    mirror: FloatArray = np.zeros(grid.shape, dtype=np.float32)
    loss: FloatArray = np.zeros(grid.shape, dtype=np.float32)
    for structure in structures:
        if structure.echo is None:
            continue
        near = np.exp(-((structure.distance / np.float32(0.2)) ** 2))
        patches = Wave(generator, 1.0, 9.0, terms=8)(lateral, elevation)
        # At the skin a patch must fall 1.8 SD below the mean to drop out, at full depth 0.8 SD above.
        visible = 1 / (1 + np.exp(-(patches + 1.8 - 2.6 * share) / 0.25))
        strength = near * structure.facing**8 * visible
        np.maximum(mirror, np.float32(10 ** (structure.echo / 20)) * strength * rough, out=mirror)
        if structure.tissue in ("muscle", "fat"):
            # Fascia that echoes takes about 1 dB from what is below it.
            loss += strength * np.float32(grid.step / 0.4)
    return mirror, loss


def _poor_contact(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Loss in dB under patches of the probe without gel: shadows from the skin down, continuous in elevation."""
    lateral = (np.arange(grid.shape[1], dtype=np.float32) * _steps(grid)[1])[:, None]
    elevation = (np.arange(grid.shape[2], dtype=np.float32) * grid.elevation_step)[None, :]
    patches = Wave(generator, 1.0, 22.0, terms=6)(lateral, elevation)
    threshold = generator.uniform(1.2, 2.2)
    return (14.0 * np.clip(patches - threshold, 0, 1))[None].astype(np.float32)


def _blur(echo: NDArray[np.complex64], grid: BeamGrid, scanner: Scanner) -> NDArray[np.complex64]:
    """Convolve with the point spread function: Gaussian, wider away from the focus, of unit energy at every depth."""
    samples, beams, frames = grid.shape
    depth = (np.arange(samples) + 0.5) / samples
    widening = np.sqrt(1 + (1.6 * np.abs(depth - scanner.focus) / 0.5) ** 2)
    lateral = scanner.lateral_fwhm * FWHM_TO_SIGMA * widening / grid.pitch
    elevational = scanner.elevational_fwhm * FWHM_TO_SIGMA * widening / grid.elevation_step

    axial = scanner.axial_fwhm * FWHM_TO_SIGMA / grid.step
    padded = [fft.next_fast_len(size + 12) for size in (beams, frames)]
    transfer = _transfer(lateral, padded[0])[:, :, None] * _transfer(elevational, padded[1])[:, None, :]
    spectrum = fft.fft2(echo, s=padded, axes=(1, 2), workers=1)
    spectrum *= transfer.astype(np.float32)
    blurred = fft.ifft2(spectrum, axes=(1, 2), workers=1)[:, :beams, :frames]
    blurred = ndimage.gaussian_filter1d(blurred, axial, axis=0, mode="nearest")
    # The axial kernel's energy; the others are normalised in the transfer function.
    line = ndimage.gaussian_filter1d(np.eye(1, 129, 64)[0], axial, mode="constant")
    return (blurred / np.sqrt(np.sum(line**2))).astype(np.complex64)


def _transfer(sigma: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Fourier transform of Gaussians of unit energy, ``(len(sigma), length)``."""
    response = np.exp(-2 * (np.pi * np.fft.fftfreq(length)[None, :] * sigma[:, None]) ** 2)
    scaled: NDArray[np.float64] = response / np.sqrt(np.mean(response**2, axis=1, keepdims=True))
    return scaled


def _steps(grid: BeamGrid) -> tuple[float, float, float]:
    """Distance of samples, beams (on average) and frames in mm."""
    return grid.step, float(grid.pitch.mean()), grid.elevation_step


def _complex_noise(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.complex64]:
    """Circular complex normal numbers with a mean square of 1."""
    pairs = generator.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return pairs.view(np.complex64)[..., 0]
