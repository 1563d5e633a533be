"""Segmentation of ultrasound, guided by confidence maps, that knows where it can be trusted."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cm_lightning")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
