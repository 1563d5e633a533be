"""The largest component: for which classes it is kept, and what a checkpoint knows of that."""

import pytest
import torch

from cm_lightning.tasks.postprocessing import LargestComponent

NAMES = ["muscle", "nerve"]

# The muscle has a speck that the label does not have; one of the nerve's two parts is all that the label has.
LABEL = torch.tensor(
    [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 2],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)
PREDICTION = torch.tensor(
    [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 2],
        [0, 0, 0, 0, 0],
        [2, 2, 0, 0, 1],
    ]
)
MISSING = "chooses its classes by the validation of the checkpoint's epoch, and this checkpoint does not hold it"


def validated(enabled=True):
    component = LargestComponent(NAMES, enabled)
    component.add_case("a", PREDICTION, LABEL)
    component.end_validation()
    return component


def test_validation_measures_with_and_without():
    component = LargestComponent(NAMES)
    component.add_case("a", PREDICTION, LABEL)
    dice = component.end_validation()
    assert dice.dtype == torch.float64
    # Muscle: 6 of 7 and 6 voxels, then of 6 and 6. Nerve: 1 of 3 and 1, then none.
    torch.testing.assert_close(dice, torch.tensor([12 / 13, 0.5], dtype=torch.float64))
    assert component.gain == pytest.approx({"muscle": 1 / 13, "nerve": -0.5})


def test_gain_chooses_the_classes():
    component = validated()
    assert component.classes == [1]
    after = PREDICTION.clone()
    after[3, 4] = 0
    assert torch.equal(component(PREDICTION), after)
    component.gain = {"muscle": 0.0, "nerve": 0.0}  # what changes nothing is left out
    assert component.classes == []
    assert component(PREDICTION) is PREDICTION
    component.gain = {"muscle": -0.1, "nerve": 0.1}
    assert component.classes == [2]


def test_disabled_it_measures_and_changes_nothing():
    component = validated(enabled=False)
    assert component.gain["muscle"] > 0
    assert component.classes == []
    assert component(PREDICTION) is PREDICTION
    assert LargestComponent(NAMES)(PREDICTION) is PREDICTION  # also without a validation


def test_every_validation_begins_anew():
    component = validated()
    component.add_case("b", LABEL, LABEL)
    torch.testing.assert_close(component.end_validation(), torch.ones(2, dtype=torch.float64))
    assert component.gain == {"muscle": 0, "nerve": 0}


def test_means_are_over_the_cases_that_have_a_class():
    component = LargestComponent([*NAMES, "bone"])
    component.add_case("a", PREDICTION, LABEL)
    component.add_case("b", torch.zeros_like(LABEL), torch.zeros_like(LABEL))
    dice = component.end_validation()
    assert dice[0] == pytest.approx(12 / 13)
    assert dice[2].isnan()
    assert component.gain["bone"] == 0


def test_gain_survives_a_checkpoint(tmp_path):
    component, checkpoint = validated(), {"epoch": 3}
    component.save(checkpoint)
    assert checkpoint == {"epoch": 3, "largest_component_gain": component.gain}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    other = LargestComponent(NAMES, enabled=True)
    other.load(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert other.gain == component.gain
    assert other.classes == [1]


@pytest.mark.parametrize("checkpoint", [{}, {"largest_component_gain": None}], ids=["no entry", "empty entry"])
def test_a_checkpoint_without_a_validation_is_named_where_it_is_needed(checkpoint):
    component = validated()
    component.load(checkpoint)
    with pytest.raises(ValueError, match=MISSING):
        component(PREDICTION)
    disabled = validated(enabled=False)
    disabled.load(checkpoint)
    assert disabled(PREDICTION) is PREDICTION


def test_two_processes_that_share_a_case_agree_with_one(two_processes):
    cases = {"a": PREDICTION, "b": LABEL, "c": LABEL.flip(0)}

    def validate(names):
        component = LargestComponent(NAMES)
        for name in names:
            component.add_case(name, cases[name], LABEL)
        return component.end_validation().tolist(), component.gain

    one = validate("abc")
    for dice, gain in two_processes(lambda rank: validate(("ab", "ca")[rank])):
        assert dice == pytest.approx(one[0])
        assert gain == pytest.approx(one[1])
