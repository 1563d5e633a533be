"""Geometries as dictionaries of numbers and text, for files that people and other programs can write."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cm_lightning.confidence.domain.shapes import Geometry, MaskRegion, Polygon, Rectangle, Sector
from cm_lightning.confidence.domain.sides import SIDES

FAMILIES: dict[str, type[Rectangle] | type[Sector] | type[Polygon]] = {
    "rectangle": Rectangle,
    "sector": Sector,
    "polygon": Polygon,
}
REQUIRED = {
    "rectangle": ("top", "bottom", "left", "right"),
    "sector": ("apex_row", "apex_column", "inner_radius", "outer_radius", "left_angle", "right_angle"),
    "polygon": ("vertices", "face"),
}


def geometry_to_dict(geometry: Geometry) -> dict[str, Any]:
    """Convert a geometry to a dictionary for JSON.

    Args:
        geometry: Rectangle, sector or polygon.

    Returns:
        Kind, side of the probe (``up``), and the lengths in pixels and angles in degrees.

    Raises:
        ValueError: The geometry is a mask.
    """
    if isinstance(geometry, MaskRegion):
        raise ValueError("A mask is not described by numbers; store it as an image.")
    values = {item.name: getattr(geometry, item.name) for item in fields(geometry)}
    return {
        "kind": geometry.kind,
        "up": geometry.up,
        **{key: value for key, value in values.items() if value is not None},
    }


def geometry_from_dict(values: Mapping[str, Any]) -> Geometry:
    """Create a geometry from a dictionary.

    Args:
        values: Kind, lengths in pixels and angles in degrees; see :func:`geometry_to_dict`. The side of the probe
            ``up`` is needed for a rectangle whose probe is not at the top, and ignored for other kinds, whose geometry
            determines it.

    Returns:
        The geometry.

    Raises:
        ValueError: A value is missing, unknown or not possible.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"'kind' must be one of {', '.join(FAMILIES)}, found {kind!r}.")
    family = FAMILIES[kind]
    known = {item.name for item in fields(family)} | {"kind", "up"}
    for key in values:
        if key not in known:
            raise ValueError(f"Unknown key {key!r} of a {kind}; expected one of {', '.join(sorted(known))}.")
    for key in REQUIRED[kind]:
        if values.get(key) is None:
            raise ValueError(f"A {kind} needs the key {key!r}, which is missing.")
    up = values.get("up", "top")
    if up not in SIDES:
        raise ValueError(f"'up' must be one of {', '.join(SIDES)}, found {up!r}.")
    if kind == "polygon":
        vertices = tuple(_point(point, "vertices") for point in _points(values["vertices"], "vertices"))
        face = tuple(_point(point, "face") for point in _points(values["face"], "face"))
        if len(face) != 2:
            raise ValueError(f"'face' must be two points, found {len(face)}.")
        return Polygon(vertices, (face[0], face[1]))
    numbers = {
        key: _number(value, key) for key, value in values.items() if key not in ("kind", "up") and value is not None
    }
    return Rectangle(**numbers, up=up) if kind == "rectangle" else Sector(**numbers)


def _points(value: Any, key: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key!r} must be a list of points [row, column], found {value!r}.")
    return value


def _point(value: Any, key: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{key!r} must be a list of points [row, column], found {value!r}.")
    return _number(value[0], key), _number(value[1], key)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key!r} must be a finite number, found {value!r}.")
    return float(value)
