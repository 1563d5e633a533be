"""Files of settings that were edited by hand or by other programs: valid, or one sentence."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_lightning.config_files import check_config_file, read_json
from cm_lightning.data.cases import Case
from cm_lightning.data.description import read_description
from cm_lightning.data.layouts import find_cases
from cm_lightning.data.splits import load_or_make_folds
from cm_lightning.errors import InputError
from cm_lightning.inspection.proposal import described_names
from cm_lightning.io import read_geometry
from cm_lightning.runs import FoldFolder

CASES = [Case(f"p{number}_x1", f"p{number}", Path(f"p{number}.png")) for number in range(4)]
SPLIT = {
    "split": "kfold",
    "n_folds": 2,
    "seed": 0,
    "patients": ["p0", "p1", "p2", "p3"],
    "cases": {case.id: [case.patient, None] for case in CASES},
    "folds": [{"train": ["p0"], "val": ["p1"], "test": ["p2", "p3"]}] * 2,
}
SECTOR = {
    "kind": "sector",
    "apex_row": -5.0,
    "apex_column": 15,
    "inner_radius": 6,
    "outer_radius": 40,
    "left_angle": -30,
    "right_angle": 30.5,
    "shape": [40, 30],
}
POLYGON = {"kind": "polygon", "vertices": [[0, 0], [0, 29], [39, 29]], "face": [[0, 0], [0, 29]], "shape": [40, 30]}
RECTANGLE = {"kind": "rectangle", "top": 2, "bottom": 30, "left": 3, "right": 20, "up": "top"}
PLAN = {"split": "kfold", "split_seed": 0, "fold": 0, "test_cases": [["a"], ["b"]]}
DESCRIPTION = {"labels": {"background": 0, "nerve": 1, "both": [1, 2]}, "file_ending": ".png"}


def read_folds(path):
    load_or_make_folds(path, CASES, "kfold", 2, 0)


def read_frames(path):
    read_geometry(path, (40, 30))


def read_plan(path):
    (path.parent / "fold0").mkdir(exist_ok=True)
    fold = FoldFolder(path.parent / "fold0")
    fold.test_plan.write_bytes(path.read_bytes())
    fold.read_test_plan()


def read_data_set(path):
    path.rename(path.with_name("dataset.json"))
    described_names(read_description(path.parent))
    find_cases(path.parent, "nnunet")


READERS = [
    (SPLIT, read_folds),
    (SECTOR, read_frames),
    (POLYGON, read_frames),
    (RECTANGLE, read_frames),
    (PLAN, read_plan),
    (DESCRIPTION, read_data_set),
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.sampled_from(["", "p0", "kfold", "top", "nan", "\x00"]),
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def places(value, path=()):
    """Yield the paths of all values in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@pytest.mark.parametrize(
    ("document", "read"), READERS, ids=["split", "sector", "polygon", "rectangle", "plan", "nnunet"]
)
def test_any_changed_value_is_valid_or_one_sentence(document, read, tmp_path_factory):
    @settings(max_examples=150, deadline=None, database=None)
    @given(st.data())
    def check(data):
        changed = copy.deepcopy(document)
        place = data.draw(st.sampled_from(list(places(document))))
        value = data.draw(VALUES)
        if place:
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = value
        else:
            changed = value
        path = tmp_path_factory.mktemp("document") / "file.json"
        path.write_text(json.dumps(changed))
        reason = None
        try:
            read(path)
        except InputError as error:
            reason = str(error)
        assert reason is None or str(path.parent) in reason

    check()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{\x00}\x00", b"[" * 100_000, b"1" * 10_000, b"\x00\x01"])
def test_files_that_are_no_json_are_one_sentence(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json cannot be read as JSON"):
        read_json(path)
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path) == {}


def test_deeply_nested_configurations_are_one_sentence(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: " + "[" * 2000 + "]" * 2000)
    with pytest.raises(InputError, match=r"a\.yaml is nested too deeply"):
        check_config_file(path)


def test_messages_contain_no_control_characters():
    error = InputError("The header of a.mha has \x00\x1b[31m and \udcff.")
    assert str(error) == r"The header of a.mha has \x00\x1b[31m and \udcff."
