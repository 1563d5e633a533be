"""Files are replaced only by complete ones."""

import subprocess
import sys

import pytest

from cm_lightning.writing import replaced, write_text


def test_a_file_is_replaced_only_by_a_complete_one(tmp_path):
    file = tmp_path / "a.csv"
    write_text(file, "old")

    def write_half():
        with replaced(file) as partial:
            partial.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_processes_that_share_a_file_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "new" / "split.json"
    with replaced(file, is_shared=True) as partial:
        partial.write_text("first")
        code = f"from cm_lightning.writing import *; write_text(Path({str(file)!r}), 'second', is_shared=True)"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert file.read_text() == "second"
    assert file.read_text() == "first"
    assert [path.name for path in file.parent.iterdir()] == ["split.json"]


def test_the_name_of_an_unfinished_file_has_the_suffix_of_the_file(tmp_path):
    with replaced(tmp_path / "a.nii.gz") as partial:
        partial.write_bytes(b"")
    assert partial.name.endswith(".nii.gz")
    assert partial.name.startswith(".")  # hidden, and no input of another command
