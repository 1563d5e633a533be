"""Smooth 3D anatomy of random patients: muscles of the calf, and the neck with the thyroid.

Coordinates are in mm: depth below the probe, lateral position from the middle of the probe, and elevation along the
sweep. A body consists of structures, which have a signed distance (negative inside), a tissue, and an interface with or
without a specular echo.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Variant = Literal["muscle", "thyroid"]

# Values of the classes in the label files, as in the real data sets.
MUSCLE_CLASSES = {"soleus": 100, "gastrocnemius_medialis": 150, "gastrocnemius_lateralis": 200}
THYROID_CLASSES = {"thyroid": 1, "carotid": 2, "jugular": 3}


@dataclass(frozen=True)
class Tissue:
    """Acoustic properties of a tissue.

    Attributes:
        echogenicity: Mean backscatter in dB relative to bright connective tissue.
        attenuation: One-way attenuation in dB / cm / MHz.
        strand_contrast: Contrast of bright strands of perimysium or septa in dB.

    References:
        Szabo, "Diagnostic Ultrasound Imaging: Inside Out", Academic Press 2014, for the attenuation (rounded).
    """

    echogenicity: float
    attenuation: float
    strand_contrast: float = 0.0


TISSUES = {
    "skin": Tissue(-4.0, 0.6),
    "fat": Tissue(-17.0, 0.55, strand_contrast=14.0),
    "muscle": Tissue(-20.0, 0.6, strand_contrast=18.0),
    "connective": Tissue(-15.0, 0.65, strand_contrast=10.0),
    "thyroid": Tissue(-9.0, 0.5),
    "blood": Tissue(-48.0, 0.15),
    "bone": Tissue(-16.0, 12.0),
    "air": Tissue(-18.0, 14.0),
}


@dataclass(frozen=True)
class Structure:
    """Part of a body. Where structures overlap, the later one replaces the earlier ones.

    Attributes:
        name: Name of a class, or any other name if the structure is not labelled.
        tissue: Key of :data:`TISSUES`.
        distance: Signed distance to the surface in mm, negative inside; broadcastable to ``(depth, lateral,
            elevation)``.
        incidence: Orientation of the surface, from 0 (parallel to the beam) to 1 (perpendicular); broadcastable to the
            same shape.
        echo: Amplitude of the specular echo in dB relative to bright connective tissue; None for no echo.
    """

    name: str
    tissue: str
    distance: FloatArray
    incidence: FloatArray
    echo: float | None = None


@dataclass
class Wave:
    """Smooth random function of the lateral and elevational position: a sum of cosines with random directions.

    Attributes:
        generator: Random generator.
        amplitude: Standard deviation of the function.
        wavelength: Typical wavelength in mm.
        terms: Number of cosines.
    """

    generator: np.random.Generator
    amplitude: float
    wavelength: float
    terms: int = 5
    _waves: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the parameters of the cosines."""
        angle = self.generator.uniform(0, 2 * np.pi, self.terms)
        number = 2 * np.pi / (self.wavelength * self.generator.uniform(0.7, 1.6, self.terms))
        phase = self.generator.uniform(0, 2 * np.pi, self.terms)
        weight = self.generator.normal(0, 1, self.terms)
        weight *= self.amplitude * np.sqrt(2 / np.sum(weight**2))
        self._waves = np.stack([weight, number * np.cos(angle), number * np.sin(angle), phase], axis=1)

    def __call__(self, lateral: FloatArray, elevation: FloatArray) -> FloatArray:
        """Evaluate the function at broadcastable coordinates in mm."""
        total: FloatArray = np.zeros(np.broadcast_shapes(lateral.shape, elevation.shape), dtype=np.float32)
        for weight, along_lateral, along_elevation, phase in self._waves.astype(np.float32):
            total += weight * np.cos(along_lateral * lateral + along_elevation * elevation + phase)
        return total


Body = Callable[[FloatArray, FloatArray, FloatArray], list[Structure]]


def draw_body(variant: Variant, extent: tuple[float, float, float], generator: np.random.Generator) -> Body:
    """Draw the anatomy of a random patient.

    Args:
        variant: Kind of anatomy.
        extent: Size of the image in mm in the depth, lateral and elevational direction, to which the body is scaled.
        generator: Random generator.

    Returns:
        Function of broadcastable coordinates (depth, lateral, elevation) in mm that returns the structures, from
        the outermost to the innermost.
    """
    match variant:
        case "muscle":
            return _draw_calf(extent, generator)
        case "thyroid":
            return _draw_neck(extent, generator)


def _layer(
    depth: FloatArray, surface: FloatArray, lateral: FloatArray, elevation: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the signed distance to a surface, negative below it, and the orientation of the surface."""
    slope = np.zeros(surface.shape, dtype=np.float32)
    for axis, coordinate in ((1, lateral), (2, elevation)):
        if surface.shape[axis] > 2:
            coordinates = np.broadcast_to(coordinate, surface.shape)
            derivative = np.gradient(surface, axis=axis) / np.gradient(coordinates, axis=axis)
            slope += derivative**2
    incidence = (1 / np.sqrt(1 + slope)).astype(np.float32)
    return (surface - depth) * incidence, incidence


def _tube(
    depth: FloatArray,
    lateral: FloatArray,
    centre: tuple[FloatArray, FloatArray],
    radii: tuple[FloatArray, FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Return the signed distance to an elliptic tube along elevation, and the orientation of its wall."""
    scaled_depth = (depth - centre[0]) / radii[0]
    scaled_lateral = (lateral - centre[1]) / radii[1]
    radius = np.sqrt(scaled_depth**2 + scaled_lateral**2) + np.float32(1e-6)
    normal = scaled_depth / radii[0], scaled_lateral / radii[1]
    incidence = np.abs(normal[0]) / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + np.float32(1e-9))
    return (radius - 1) * np.minimum(*radii), incidence.astype(np.float32)


def _draw_calf(extent: tuple[float, float, float], rng: np.random.Generator) -> Body:
    """Draw skin, fat, the two heads of the gastrocnemius above the soleus, the fibula and a vessel bundle."""
    depth_mm, width, length = extent
    fat = depth_mm * rng.uniform(0.06, 0.13)
    gastrocnemius = depth_mm * rng.uniform(0.22, 0.30)
    soleus = depth_mm * rng.uniform(0.26, 0.34)
    bulge = depth_mm * rng.uniform(0.02, 0.08)
    middle = width * rng.uniform(-0.08, 0.08)
    septum_tilt = rng.uniform(-0.25, 0.25)
    gastrocnemius_belly = length * rng.uniform(0.25, 0.45)
    soleus_belly = length * rng.uniform(0.45, 0.65)
    gastrocnemius_half_width = width * rng.uniform(0.47, 0.56)
    soleus_half_width = width * rng.uniform(0.38, 0.50)
    soleus_centre = width * rng.uniform(-0.08, 0.08)
    fibula = (depth_mm * rng.uniform(0.84, 0.92), width * rng.choice([-1, 1]) * rng.uniform(0.18, 0.34))
    fibula_radius = depth_mm * rng.uniform(0.07, 0.10)
    vessel_offset = -np.sign(fibula[1]) * width * rng.uniform(0.05, 0.2)
    vessel_radius = depth_mm * rng.uniform(0.015, 0.03)
    skin_wave, fat_wave = Wave(rng, 0.15, width / 2), Wave(rng, 0.7, width / 1.5)
    gastrocnemius_wave, soleus_wave = Wave(rng, 1.1, width / 1.5), Wave(rng, 1.3, width / 1.5)
    septum_wave, path_wave = Wave(rng, 1.5, length / 2), Wave(rng, 1.0, length / 1.5)

    def body(depth: FloatArray, lateral: FloatArray, elevation: FloatArray) -> list[Structure]:
        def muscle(
            thickness: float, centre: float, half_width: float, position: float, length_fraction: float
        ) -> FloatArray:
            longitudinal_profile = 0.25 + 0.75 * np.exp(-(((elevation - position) / (length_fraction * length)) ** 2))
            transverse_profile = np.sqrt(np.clip(1 - ((lateral - centre) / half_width) ** 2, 0, None))
            return (thickness * longitudinal_profile * transverse_profile).astype(np.float32)

        skin = 1.4 + skin_wave(lateral, elevation)
        top = skin + fat + bulge * (2 * lateral / width) ** 2 + fat_wave(lateral, elevation)
        upper = muscle(gastrocnemius, middle, gastrocnemius_half_width, gastrocnemius_belly, 0.55)
        lower = muscle(soleus, soleus_centre, soleus_half_width, soleus_belly, 0.60)
        middle_surface = top + upper * (1 + 0.10 * gastrocnemius_wave(lateral, elevation))
        bottom = middle_surface + 0.45 + lower * (1 + 0.10 * soleus_wave(lateral, elevation))
        septum = middle + septum_wave(np.zeros_like(lateral), elevation)
        septum_side = lateral - septum - septum_tilt * (depth - top)

        fat_layer, fat_incidence = _layer(depth, skin, lateral, elevation)
        deep, deep_incidence = _layer(depth, top, lateral, elevation)
        soleus_top, soleus_top_incidence = _layer(depth, middle_surface, lateral, elevation)
        soleus_bottom, soleus_bottom_incidence = _layer(depth, bottom, lateral, elevation)
        heads = np.maximum(deep, 0.45 - soleus_top)
        heads_incidence = np.where(np.abs(deep) < np.abs(soleus_top), deep_incidence, soleus_top_incidence)
        medial = np.maximum(heads, septum_side + 0.25)
        lateral_head = np.maximum(heads, 0.25 - septum_side)
        # The septum is parallel to the beam, so its echo is weaker than that of the fascia above and below.
        at_septum = np.abs(septum_side) < np.abs(heads)
        heads_incidence = np.where(at_septum, np.float32(0.75), heads_incidence)
        calf = np.maximum(soleus_top + 0.45, -soleus_bottom)
        calf_incidence = np.where(
            np.abs(soleus_top) < np.abs(soleus_bottom), soleus_top_incidence, soleus_bottom_incidence
        )
        path_offset = path_wave(np.zeros_like(lateral), elevation)
        bone, bone_incidence = _tube(
            depth,
            lateral,
            (np.float32(fibula[0]) + 0.3 * path_offset, np.float32(fibula[1]) + path_offset),
            (np.float32(fibula_radius) + 0 * path_offset, np.float32(fibula_radius * 1.1) + 0 * path_offset),
        )
        vessel_depth = bottom + 1.5 * vessel_radius + 0.5
        vessel, vessel_incidence = _tube(
            depth,
            lateral,
            (vessel_depth, np.float32(vessel_offset) + 0.6 * path_offset),
            (np.float32(vessel_radius) + 0 * path_offset, np.float32(vessel_radius * 1.2) + 0 * path_offset),
        )
        return [
            Structure("fat", "fat", fat_layer, fat_incidence, echo=0.0),
            Structure("deep", "connective", deep, deep_incidence, echo=None),
            Structure("gastrocnemius_medialis", "muscle", medial, heads_incidence, echo=2.0),
            Structure("gastrocnemius_lateralis", "muscle", lateral_head, heads_incidence, echo=2.0),
            Structure("soleus", "muscle", calf, calf_incidence, echo=1.0),
            Structure("vessel", "blood", vessel, vessel_incidence, echo=-3.0),
            Structure("fibula", "bone", bone, bone_incidence, echo=16.0),
        ]

    return body


def _draw_neck(extent: tuple[float, float, float], rng: np.random.Generator) -> Body:
    """Draw skin, strap muscles, a thyroid lobe between trachea and carotid, the jugular vein and a deep muscle."""
    depth_mm, width, length = extent
    side = rng.choice([-1.0, 1.0])
    fat = depth_mm * rng.uniform(0.05, 0.10)
    strap = depth_mm * rng.uniform(0.07, 0.12)
    lobe_centre = (depth_mm * rng.uniform(0.36, 0.44), -side * width * rng.uniform(0.02, 0.08))
    lobe_radii = (depth_mm * rng.uniform(0.14, 0.20), width * rng.uniform(0.15, 0.20))
    lobe_middle, lobe_length = length * rng.uniform(0.4, 0.6), length * rng.uniform(0.40, 0.55)
    trachea = (depth_mm * rng.uniform(0.42, 0.50), -side * width * rng.uniform(0.40, 0.46))
    trachea_radius = width * rng.uniform(0.15, 0.18)
    carotid = (lobe_centre[0] + depth_mm * rng.uniform(0.03, 0.10), side * width * rng.uniform(0.20, 0.26))
    carotid_radius = depth_mm * rng.uniform(0.055, 0.075)
    jugular = (carotid[0] - depth_mm * rng.uniform(0.08, 0.14), side * width * rng.uniform(0.34, 0.40))
    jugular_radii = (depth_mm * rng.uniform(0.04, 0.085), width * rng.uniform(0.08, 0.12))
    skin_wave, fat_wave, strap_wave = Wave(rng, 0.15, width / 2), Wave(rng, 0.4, width / 2), Wave(rng, 0.5, width / 2)
    lobe_wave, size_wave = Wave(rng, 0.8, length / 1.5), Wave(rng, 0.08, length / 2)
    vessel_wave, respiration_wave = Wave(rng, 0.8, length), Wave(rng, 0.18, length / 1.5)
    posterior_wave = Wave(rng, 0.8, width / 1.5)
    posterior_depth = depth_mm * rng.uniform(0.68, 0.76)
    lobe_bumps, vessel_bumps = Wave(rng, 0.9, width / 3.5), Wave(rng, 0.15, width / 6)

    def body(depth: FloatArray, lateral: FloatArray, elevation: FloatArray) -> list[Structure]:
        zeros = np.zeros_like(lateral)
        skin = 1.2 + skin_wave(lateral, elevation)
        muscle_top = skin + fat + fat_wave(lateral, elevation)
        muscle_bottom = muscle_top + strap + strap_wave(lateral, elevation)
        posterior = posterior_depth + posterior_wave(lateral, elevation)
        taper = np.sqrt(np.clip(1 - ((elevation - lobe_middle) / lobe_length) ** 2, 0.0025, None)).astype(np.float32)
        lobe_scale = taper * (1 + size_wave(zeros, elevation))
        shift, path_offset = lobe_wave(zeros, elevation), vessel_wave(zeros, elevation)

        def tube(
            centre: tuple[float, float], radii: tuple[float, float], offset: FloatArray, scale: FloatArray
        ) -> tuple[FloatArray, FloatArray]:
            return _tube(
                depth,
                lateral,
                (np.float32(centre[0]) + 0.5 * offset, np.float32(centre[1]) + offset),
                (np.float32(radii[0]) * scale, np.float32(radii[1]) * scale),
            )

        constant_scale = np.ones_like(taper)
        # With slanted coordinates, a function of two arguments varies along all three axes.
        slanted = (lateral + 0.6 * depth, elevation + 0.8 * depth)
        bumps, ripple = lobe_bumps(*slanted), vessel_bumps(*slanted)
        lobe, lobe_incidence = tube(lobe_centre, lobe_radii, shift, lobe_scale)
        vein, vein_incidence = tube(jugular, jugular_radii, path_offset, 1 + respiration_wave(zeros, elevation))
        artery, artery_incidence = tube(carotid, (carotid_radius,) * 2, path_offset, constant_scale)
        return [
            Structure("fat", "fat", *_layer(depth, skin, lateral, elevation), echo=0.0),
            Structure("strap", "muscle", *_layer(depth, muscle_top, lateral, elevation), echo=1.0),
            Structure("deep", "connective", *_layer(depth, muscle_bottom, lateral, elevation), echo=0.0),
            Structure("longus", "muscle", *_layer(depth, posterior, lateral, elevation), echo=2.0),
            Structure("thyroid", "thyroid", lobe + bumps, lobe_incidence, echo=-2.0),
            Structure("trachea", "air", *tube(trachea, (trachea_radius,) * 2, 0.3 * shift, constant_scale), echo=14.0),
            Structure("jugular", "blood", vein + 2 * ripple, vein_incidence, echo=-1.0),
            Structure("carotid", "blood", artery + ripple, artery_incidence, echo=3.0),
        ]

    return body
