"""Versions of the software that produced a result."""

import platform
from importlib.metadata import version

LIBRARIES = ("cm_lightning", "torch", "monai", "pytorch-lightning", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect results, and the kind of machine.

    Returns:
        Versions by name. ``machine`` is the operating system and processor architecture, without the host name.
    """
    libraries = {name: version(name) for name in LIBRARIES}
    return {**libraries, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
