"""Simulation of ultrasound images.

This is a linear narrow-band model at complex baseband. Random scatterers are multiplied by the echogenicity and
convolved with a point spread function that is wider outside the focus. Transmitted sound and echoes are attenuated,
which time-gain compensation partly corrects. Specular echoes of interfaces that face the beam and electronic noise are
added. The magnitude of the result is the envelope, in which fully developed speckle has a Rayleigh distribution (mean /
standard deviation = 1.91).

References:
    Wagner et al., "Statistics of speckle in ultrasound B-scans", IEEE Transactions on Sonics and Ultrasonics 1983, for
    the Rayleigh distribution.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cm_lightning.data.phantom.anatomy import TISSUES, FloatArray, Structure, Wave

# Ratio of the standard deviation of a Gaussian to its full width at half maximum (FWHM).
FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
# Tissue outside all structures.
BACKGROUND = "skin"


@dataclass(frozen=True)
class Scanner:
    """Settings of the simulated scanner.

    Attributes:
        frequency: Centre frequency in MHz.
        axial_fwhm: Axial resolution (FWHM) in mm.
        lateral_fwhm: Lateral resolution (FWHM) at the focus in mm.
        elevational_fwhm: Slice thickness (FWHM) at the focus in mm.
        focus: Focal depth as a fraction of the imaged depth.
        time_gain: Fraction of the mean attenuation of tissue that time-gain compensation corrects.
        noise: Level of the electronic noise in dB relative to the echo of bright tissue at the skin.
        dynamic_range: Dynamic range of the grey values in dB.
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
    """Sampling grid of a sweep, along its beams.

    Attributes:
        step: Axial distance between samples in mm.
        pitch: Distance between neighbouring beams in mm at every sample, ``(samples,)``. It is constant for a linear
            probe.
        elevation_step: Distance between frames in mm.
        shape: Numbers of samples, beams and frames.
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
        structures: Structures of the body, evaluated on the grid, from the outermost to the innermost.
        grid: Sampling grid.
        scanner: Settings of the scanner.
        generator: Random generator for scatterers, strands, missing boundaries, poor contact and noise.

    Returns:
        Complex echo after time-gain compensation, complex64, ``(samples, beams, frames)``.
    """
    echogenicity, attenuation, strand_contrast = _tissue_maps(structures, grid.shape)
    echogenicity += strand_contrast * _strands(grid, generator) + _regional_echogenicity(grid, generator)
    amplitude = 10 ** (echogenicity / 20)
    echo = _complex_noise(grid.shape, generator) * amplitude
    specular_echo, interface_loss = _interfaces(structures, grid, generator)
    echo += specular_echo
    loss = np.cumsum(2 * scanner.frequency * attenuation * (grid.step / 10), axis=0)
    loss += np.cumsum(interface_loss, axis=0)
    loss += _poor_contact(grid, generator)
    echo *= 10 ** (-loss / 20)
    echo = _blur(echo, grid, scanner)
    echo += 10 ** (scanner.noise / 20) * _complex_noise(grid.shape, generator)
    mean_attenuation = scanner.time_gain * 0.55
    gain = 2 * scanner.frequency * mean_attenuation * np.arange(grid.shape[0]) * grid.step / 10
    return echo * (10 ** (gain / 20)).astype(np.float32)[:, None, None]


def log_compress(envelope: FloatArray, dynamic_range: float) -> NDArray[np.uint8]:
    """Convert an envelope to grey values by log compression.

    White corresponds to 6 dB above the 99.8th percentile, so that most tissue has grey values in the lower half of the
    range, as on clinical scanners.

    Args:
        envelope: Envelope of any shape.
        dynamic_range: Dynamic range in dB, which is mapped to grey values from 0 to 255.

    Returns:
        Grey values, uint8, with the shape of the envelope.
    """
    decibel = 20 * np.log10(np.maximum(envelope, np.finfo(np.float32).tiny))
    decibel -= np.percentile(decibel, 99.8) + 6.0
    return np.round(255 * np.clip(1 + decibel / dynamic_range, 0, 1)).astype(np.uint8)


def _tissue_maps(structures: list[Structure], shape: tuple[int, int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return maps of echogenicity (dB), attenuation (dB / cm / MHz) and contrast of strands (dB)."""
    index = np.zeros(shape, dtype=np.uint8)
    names = [BACKGROUND]
    for structure in structures:
        names.append(structure.tissue)
        np.copyto(index, len(names) - 1, where=structure.distance < 0)
    table = np.array(
        [[TISSUES[n].echogenicity, TISSUES[n].attenuation, TISSUES[n].strand_contrast] for n in names], dtype=np.float32
    )
    return table[index, 0], table[index, 1], table[index, 2]


def _strands(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Return sparse bright strands perpendicular to the beam, from 0 to 1, such as perimysium in muscles."""
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
    pad = [(0, size - n) for size, n in zip(grid.shape, strands.shape, strict=True)]
    padded: FloatArray = np.pad(strands, pad, mode="edge")
    return padded


def _regional_echogenicity(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Return regional variations of the echogenicity in dB, with an SD of 1.5 dB and a size of about one centimetre."""
    size = [max(2, round(n * step / 8.0)) for n, step in zip(grid.shape, _steps(grid), strict=True)]
    coarse = generator.normal(0, 1.5, size).astype(np.float32)
    zoomed: FloatArray = ndimage.zoom(
        coarse, [n / c for n, c in zip(grid.shape, size, strict=True)], order=1, mode="nearest", grid_mode=True
    )
    return zoomed


def _interfaces(
    structures: list[Structure], grid: BeamGrid, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return the amplitude of specular echoes, and the loss in dB that each sample of an interface causes below it.

    Interfaces have a specular echo if they face the beam. The echo is missing in smooth patches, more often at large
    depths.
    """
    samples, beams, frames = grid.shape
    lateral = (np.arange(beams, dtype=np.float32) * _steps(grid)[1])[None, :, None]
    elevation = (np.arange(frames, dtype=np.float32) * grid.elevation_step)[None, None, :]
    relative_depth = np.linspace(0, 1, samples, dtype=np.float32)[:, None, None]
    # The echo of rough fascia varies like fine speckle.
    roughness = np.abs(_complex_noise((1, beams, frames), generator))
    specular_echo: FloatArray = np.zeros(grid.shape, dtype=np.float32)
    loss: FloatArray = np.zeros(grid.shape, dtype=np.float32)
    for structure in structures:
        if structure.echo is None:
            continue
        profile = np.exp(-((structure.distance / np.float32(0.2)) ** 2))
        patches = Wave(generator, 1.0, 9.0, terms=8)(lateral, elevation)
        # The threshold for missing patches is 1.8 SD below the mean at the skin and 0.8 SD above it at full depth.
        visible = 1 / (1 + np.exp(-(patches + 1.8 - 2.6 * relative_depth) / 0.25))
        strength = profile * structure.incidence**8 * visible
        amplitude = np.float32(10 ** (structure.echo / 20))
        np.maximum(specular_echo, amplitude * strength * roughness, out=specular_echo)
        if structure.tissue in ("muscle", "fat"):
            # Fascia with a specular echo causes a loss of about 1 dB.
            loss += strength * np.float32(grid.step / 0.4)
    return specular_echo, loss


def _poor_contact(grid: BeamGrid, generator: np.random.Generator) -> FloatArray:
    """Return the loss in dB below parts of the probe without gel, which casts shadows that start at the skin."""
    lateral = (np.arange(grid.shape[1], dtype=np.float32) * _steps(grid)[1])[:, None]
    elevation = (np.arange(grid.shape[2], dtype=np.float32) * grid.elevation_step)[None, :]
    patches = Wave(generator, 1.0, 22.0, terms=6)(lateral, elevation)
    threshold = generator.uniform(1.2, 2.2)
    return (14.0 * np.clip(patches - threshold, 0, 1))[None].astype(np.float32)


def _blur(echo: NDArray[np.complex64], grid: BeamGrid, scanner: Scanner) -> NDArray[np.complex64]:
    """Convolve with a Gaussian point spread function of unit energy that is wider outside the focus."""
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
    # Normalise the energy of the axial kernel. The lateral and elevational transfer functions are already normalised.
    kernel = ndimage.gaussian_filter1d(np.eye(1, 129, 64)[0], axial, mode="constant")
    return (blurred / np.sqrt(np.sum(kernel**2))).astype(np.complex64)


def _transfer(sigma: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return the Fourier transforms of Gaussians of unit energy and SDs of ``sigma`` samples, ``(sigmas, length)``."""
    response = np.exp(-2 * (np.pi * np.fft.fftfreq(length)[None, :] * sigma[:, None]) ** 2)
    scaled: NDArray[np.float64] = response / np.sqrt(np.mean(response**2, axis=1, keepdims=True))
    return scaled


def _steps(grid: BeamGrid) -> tuple[float, float, float]:
    """Return the distances between samples, beams (on average) and frames in mm."""
    return grid.step, float(grid.pitch.mean()), grid.elevation_step


def _complex_noise(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.complex64]:
    """Return circular complex normal numbers with a mean square of 1."""
    pairs = generator.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    return pairs.view(np.complex64)[..., 0]
