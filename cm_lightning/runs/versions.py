"""Versions of the software that produced a result."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("cm_lightning", "torch", "monai", "pytorch-lightning", "numpy", "scipy")


def source_commit() -> str | None:
    """Return the commit of the source code, with the suffix "-dirty" after changes; None outside of a git checkout."""
    try:
        described = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect results, and the kind of machine.

    Returns:
        Versions by name. ``machine`` is the operating system and processor architecture, without the host name.
    """
    libraries = {name: version(name) for name in LIBRARIES}
    return {**libraries, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
