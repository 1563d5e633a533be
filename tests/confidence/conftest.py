"""Fixtures with the kernels of the GPU, compiled for the CPU once for all tests."""

import shutil
from pathlib import Path

import pytest

from tests.confidence.cuda.host_device import HostDevice


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run the kernels on the host")
    return HostDevice(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def device_like_cupy(tmp_path_factory):
    """Return a device whose results are rounded as on a GPU."""
    processor = Path("/proc/cpuinfo")
    if shutil.which("g++") is None or not (processor.is_file() and " fma " in processor.read_text()):
        pytest.skip("needs g++ and a processor with FMA")
    return HostDevice(tmp_path_factory.mktemp("kernels_like_cupy"), like_cupy=True)
