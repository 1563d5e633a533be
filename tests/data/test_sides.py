"""Classes that differ by their side, for which images must not be mirrored."""

import pytest

from cm_lightning.data.sides import HEADS, check_mirroring, sided_classes
from cm_lightning.errors import InputError


def test_words_are_found_and_parts_of_words_are_not():
    names = ["left_lobe", "LobeRight", "lobe-Right", "bright_spot", "cleft", "gastrocnemius_lateralis", "2left"]
    assert sided_classes(names) == ["left_lobe", "lobe-Right", "2left"]
    assert sided_classes(names, HEADS) == ["gastrocnemius_lateralis"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["left_lobe", "right_lobe", "trachea"], r"classes of both sides \(left_lobe, right_lobe\)"),
        (["left_lobe", "trachea"], r"a class of the left side only \(left_lobe\)"),
    ],
)
def test_mirroring_is_refused(names, found):
    check_mirroring(names, [])
    check_mirroring(["trachea"], ["model.mirroring"])
    with pytest.raises(InputError, match=f"data.augmentation.flip would mirror images laterally, in which {found}"):
        check_mirroring(names, ["data.augmentation.flip"])
