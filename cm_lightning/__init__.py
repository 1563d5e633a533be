"""Segmentation of ultrasound images with confidence maps and uncertainty estimates."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cm_lightning")
except PackageNotFoundError:  # the package is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
