"""What a result was made with."""

import platform
from importlib.metadata import version

NAMED = ("cm_lightning", "torch", "monai", "pytorch-lightning", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Give the versions of Python and of the libraries on which results depend, and the machine.

    Returns:
        Version by name; ``machine`` is the kind of system, not its name.
    """
    named = {name: version(name) for name in NAMED}
    return {**named, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
