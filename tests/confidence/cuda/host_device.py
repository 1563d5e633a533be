"""The GPU's kernels on the host: the same source, compiled by the host's compiler, on NumPy arrays."""

import ctypes
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from cm_lightning.confidence.arrays import to_numpy
from cm_lightning.confidence.cuda.device import OPTIONS, SOURCES
from cm_lightning.confidence.cuda.maps import fill_maps
from cm_lightning.confidence.envelope import envelope
from cm_lightning.confidence.problem import Problem

HEADER = Path(__file__).with_name("cuda_on_host.h")


class HostDevice:
    """Runs the kernels thread by thread.

    Args:
        folder: Where to compile.
        free: Bytes to claim as free.
        like_cupy: Whether to fuse multiplications with additions and to flush denormal numbers to zero, as kernels
            that CuPy compiles do. The processor must support FMA.
    """

    xp = np
    out_of_memory = (MemoryError,)

    def __init__(self, folder: Path, free: int = 2**40, like_cupy: bool = False) -> None:
        self.free = free
        self.reversed = False
        self.launches: list[str] = []
        self._libraries = {}
        source = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
        names = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(.*?\)\s+)?(\w+)\(', source)
        program = folder / "kernels.cpp"
        program.write_text(
            "".join(f'#include "{path}"\n' for path in (HEADER, *SOURCES))
            + "".join(f"MAKE_LAUNCHER({name})\n" for name in names),
            encoding="utf-8",
        )
        for precision, options in OPTIONS.items():
            library = folder / f"{precision.__name__}.so"
            flags = ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-w"]
            rounding = ["-mfma", "-ffp-contract=fast", "-DFLUSH_TO_ZERO"] if like_cupy else ["-ffp-contract=off"]
            subprocess.run(["g++", *flags, *rounding, *options, str(program), "-o", str(library)], check=True)
            self._libraries[precision] = ctypes.CDLL(str(library))

    def kernels(self, precision):
        library = self._libraries[precision]

        def launch(name, grid, block, *arguments, shared_bytes=0):
            self.launches.append(name)
            assert shared_bytes <= 48 * 1024  # what every GPU has without being asked
            assert max(grid[1:], default=0) <= 65535
            assert np.prod(block) <= 1024
            assert len(arguments) == getattr(library, f"parameters_of_{name}")(), name
            values = [_as_c(argument) for argument in arguments]
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            extents = [(ctypes.c_uint * 3)(*extent, *([1] * (3 - len(extent)))) for extent in (grid, block)]
            assert min(extents[0]) > 0
            getattr(library, f"launch_{name}")(
                *extents, ctypes.c_size_t(shared_bytes), ctypes.c_bool(self.reversed), pointers
            )

        return launch

    def upload(self, array):
        return to_numpy(array)

    def keep(self, array):
        return array

    def view(self, buffer, begin, shape, dtype):
        return np.ndarray(shape, dtype, buffer, begin)

    def envelope(self, lines):
        return envelope(lines)

    def free_bytes(self):
        return self.free

    def synchronize(self):
        pass


def _as_c(argument):
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    assert type(argument) in (int, float)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_longlong(argument)


def solve_on_host(device, solver, frames, domain=None, source=None, sink=None, certify=False):
    problem = Problem(replace(solver, backend="cpu"), frames, domain, source, sink)
    maps = np.zeros(problem.shape, problem.dtype)
    info = fill_maps(device, problem, certify, maps)
    return maps.reshape(frames.shape), info
