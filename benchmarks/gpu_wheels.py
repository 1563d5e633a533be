"""Collect the wheels that the GPU benchmark needs on a machine without a network, for its training step.

    python benchmarks/gpu_wheels.py                  # for Python 3.12 on Linux
    python benchmarks/gpu_wheels.py --python 3.11    # for another version

The folder `.wheels` is copied to the machine with the repository. `benchmarks/gpu.py` installs the wheels in a
temporary folder.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The last two are needed by jsonargparse.
PACKAGES = ["monai", "nibabel", "jsonargparse", "typeshed-client", "docstring-parser"]


def main() -> None:
    """Download the wheels and check their size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help=", ".join(PACKAGES) + " by default")
    parser.add_argument("--python", default="3.12", help="version of Python")
    parser.add_argument("--processor", default="x86_64")
    parser.add_argument("--folder", type=Path, default=ROOT / ".wheels")
    parser.add_argument("--largest", type=float, default=10.0, help="size of all wheels together in MiB")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    for wheel in arguments.folder.glob("*.whl"):
        wheel.unlink()
    platforms = [f"--platform={name}_{arguments.processor}" for name in ("manylinux_2_28", "manylinux2014")]
    target = ["--only-binary=:all:", "--no-deps", f"--python-version={arguments.python}", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *target, f"--dest={arguments.folder}"]
    subprocess.run([*command, *requirements(arguments.packages)], check=True)
    size = 0
    for wheel in sorted(arguments.folder.glob("*.whl")):
        size += wheel.stat().st_size
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    print(f"{size / 2**20:6.2f} MiB  in {arguments.folder}")
    if size > arguments.largest * 2**20:
        sys.exit(f"The wheels are larger than {arguments.largest:g} MiB.")


def requirements(packages: list[str]) -> list[str]:
    """Return the packages with the versions that this package supports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = {}
    for dependency in project["dependencies"]:
        name, versions = re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", dependency).groups()  # type: ignore[union-attr]
        supported[name] = name + versions
    return [supported.get(package, package) for package in packages]


if __name__ == "__main__":
    main()
