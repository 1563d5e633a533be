"""Post-processing by the largest component: choice of classes, gathering over processes, and checkpoints."""

import pytest
import torch

from cm_lightning.tasks.postprocessing import LargestComponent

NAMES = ["muscle", "nerve"]

# The predicted muscle has an additional speck, and the label contains only the smaller component of the nerve.
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
MISSING = "needs the validation results of the checkpoint, but this checkpoint contains none"


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
    # Dice of the muscle: 2 * 6 / (7 + 6), then 1. Dice of the nerve: 2 * 1 / (3 + 1), then 0.
    torch.testing.assert_close(dice, torch.tensor([12 / 13, 0.5], dtype=torch.float64))
    assert component.gain == pytest.approx({"muscle": 1 / 13, "nerve": -0.5})


def test_gain_determines_the_classes():
    component = validated()
    assert component.classes == [1]
    expected = PREDICTION.clone()
    expected[3, 4] = 0
    assert torch.equal(component(PREDICTION), expected)
    component.gain = {"muscle": 0.0, "nerve": 0.0}
    assert component.classes == []
    assert component(PREDICTION) is PREDICTION
    component.gain = {"muscle": -0.1, "nerve": 0.1}
    assert component.classes == [2]


def test_disabled_post_processing_still_measures_the_gain():
    component = validated(enabled=False)
    assert component.gain["muscle"] > 0
    assert component.classes == []
    assert component(PREDICTION) is PREDICTION
    assert LargestComponent(NAMES)(PREDICTION) is PREDICTION  # also without a validation


def test_validations_are_independent():
    component = validated()
    component.add_case("b", LABEL, LABEL)
    torch.testing.assert_close(component.end_validation(), torch.ones(2, dtype=torch.float64))
    assert component.gain == {"muscle": 0, "nerve": 0}


def test_means_ignore_cases_without_the_class():
    component = LargestComponent([*NAMES, "bone"])
    component.add_case("a", PREDICTION, LABEL)
    component.add_case("b", torch.zeros_like(LABEL), torch.zeros_like(LABEL))
    dice = component.end_validation()
    assert dice[0] == pytest.approx(12 / 13)
    assert dice[2].isnan()
    assert component.gain["bone"] == 0


def test_gain_is_restored_from_a_checkpoint(tmp_path):
    component, checkpoint = validated(), {"epoch": 3}
    component.save(checkpoint)
    assert checkpoint == {"epoch": 3, "largest_component_gain": component.gain}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    other = LargestComponent(NAMES, enabled=True)
    other.load(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert other.gain == component.gain
    assert other.classes == [1]


@pytest.mark.parametrize("checkpoint", [{}, {"largest_component_gain": None}], ids=["no entry", "empty entry"])
def test_checkpoint_without_gain_raises_an_error_if_it_is_needed(checkpoint):
    component = validated()
    component.load(checkpoint)
    with pytest.raises(ValueError, match=MISSING):
        component(PREDICTION)
    disabled = validated(enabled=False)
    disabled.load(checkpoint)
    assert disabled(PREDICTION) is PREDICTION


def test_two_processes_measure_the_same_gain_as_one(two_processes):
    cases = {"a": PREDICTION, "b": LABEL, "c": LABEL.flip(0)}

    def validate(names):
        component = LargestComponent(NAMES)
        for name in names:
            component.add_case(name, cases[name], LABEL)
        return component.end_validation().tolist(), component.gain

    expected_dice, expected_gain = validate("abc")
    for dice, gain in two_processes(lambda rank: validate(("ab", "ca")[rank])):
        assert dice == pytest.approx(expected_dice)
        assert gain == pytest.approx(expected_gain)
