"""Fixture with the kernels of the GPU, compiled for the CPU once for all tests."""

import shutil

import pytest

from tests.confidence.cuda.host_device import HostDevice


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run the kernels on the host")
    return HostDevice(tmp_path_factory.mktemp("kernels"))
