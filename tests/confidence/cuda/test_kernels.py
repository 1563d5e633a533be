"""The kernels' source, compiled for GPUs."""

import shutil
import subprocess

import pytest

from cm_lightning.confidence.cuda.device import OPTIONS, SOURCES


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=["float32", "float64"])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_compile(tmp_path, architecture, options):
    output = str(tmp_path / "kernels.cubin")
    source = tmp_path / "kernels.cu"
    source.write_text("".join(f'#include "{path}"\n' for path in SOURCES))
    command = ["nvcc", "-cubin", f"-arch={architecture}", "-std=c++14", "-Werror", "all-warnings", *options]
    subprocess.run([*command, "-o", output, str(source)], check=True)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=["float32", "float64"])
def test_kernels_compile_without_headers(options):
    pytest.importorskip("cupy")
    from cupy_backends.cuda.libs import nvrtc

    try:
        nvrtc.getVersion()
    except Exception as error:  # whatever a missing library raises in this version
        pytest.skip(f"needs NVRTC: {error}")
    program = nvrtc.createProgram("".join(path.read_text(encoding="utf-8") for path in SOURCES), "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("-std=c++14", "--gpu-architecture=compute_80", *options))
    finally:
        nvrtc.destroyProgram(program)
