"""Tests of the comparison of files with the memory that is available."""

import bz2
import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from cm_lightning.errors import InputError
from cm_lightning.io import memory, read_image

SIDE = 2**12
ZEROS = bytes(SIDE * SIDE * 8)


def _nifti(path: Path) -> Path:
    file = path / "a.nii.gz"
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    image.header.set_data_shape((SIDE, SIDE, 8))
    file.write_bytes(gzip.compress(image.header.binaryblock + bytes(4) + ZEROS, 1))
    return file


def _meta_image(path: Path) -> Path:
    import zlib

    file = path / "a.mha"
    header = (
        f"ObjectType = Image\nNDims = 3\nDimSize = {SIDE} {SIDE} 8\nElementType = MET_UCHAR\nCompressedData = True\n"
        "ElementDataFile = LOCAL\n"
    )
    file.write_bytes(header.encode() + zlib.compress(ZEROS, 1))
    return file


def _nrrd(path: Path) -> Path:
    file = path / "a.nrrd"
    header = f"NRRD0004\ntype: float\ndimension: 3\nsizes: {10**6} {10**6} {10**6}\nencoding: bzip2\n\n"
    file.write_bytes(header.encode() + bz2.compress(b"0"))
    return file


def _pages(path: Path) -> Path:
    file = path / "a.tif"
    with tifffile.TiffWriter(file) as writer:
        for _ in range(40):
            writer.write(np.zeros((1024, 2048), np.uint16), compression="zlib", contiguous=False)
    return file


def _picture(path: Path) -> Path:
    file = path / "a.png"
    Image.new("L", (2 * SIDE, 2 * SIDE + 1)).save(file, compress_level=1)
    return file


@pytest.mark.parametrize("make", [_nifti, _meta_image, _nrrd, _pages, _picture])
def test_file_that_does_not_fit_into_memory_is_refused_before_it_is_read(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"GiB of memory; expected at most the 0.000977 GiB") as error:
            read_image(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(file) in str(error.value)
    assert peak < 2**25


def test_file_for_which_memory_cannot_be_allocated_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _nrrd(tmp_path)
    monkeypatch.setattr(memory, "available_memory", lambda: 10**30)
    with pytest.raises(InputError, match=r"a\.nrrd does not fit into the memory that is available"):
        read_image(file)


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "slurm" / "job_1"
    group.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("4:memory:/other\n0::/slurm/job_1\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CONTROL_GROUP", own)
    without_limits = memory.available_memory()
    for folder, limit, used, cached in [(group, "max", 0, 0), (group.parent, 5000, 3000, 400)]:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
    assert without_limits > 5000
    assert memory.available_memory() == 5000 - 3000 + 400
