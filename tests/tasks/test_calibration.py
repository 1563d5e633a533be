"""Temperature scaling: fitting, gathering over processes, and checkpoints."""

import pytest
import torch

from cm_lightning.tasks.calibration import TemperatureScaling

MISSING = "needs the temperature of the checkpoint, but this checkpoint contains none"
SHAPE = (20, 30)
FULL_DOMAIN = torch.ones(SHAPE, dtype=torch.uint8)


def case(seed, factor=3.0):
    """Return overconfident logits, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, *SHAPE, generator=generator)
    probabilities = logits.flatten(1).T.softmax(dim=1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0].reshape(SHAPE)
    return factor * logits, labels


def validated(names="abc", enabled=True):
    scaling = TemperatureScaling(enabled)
    for name in names:
        scaling.add_case(name, *case(ord(name)), FULL_DOMAIN)
    scaling.end_validation()
    return scaling


def test_factor_of_overconfident_logits_is_recovered():
    scaling = validated()
    assert scaling.temperature == pytest.approx(3, rel=0.15)
    assert scaling.divisor == scaling.temperature


def test_voxels_outside_the_domain_are_ignored():
    logits, labels = case(0)
    domain = FULL_DOMAIN.clone()
    domain[10:] = 0
    changed = labels.clone()
    changed[10:] = logits.argmin(dim=0)[10:]
    temperatures = []
    for case_labels in (labels, changed):
        scaling = TemperatureScaling(True)
        scaling.add_case("a", logits, case_labels, domain)
        temperatures.append(scaling.end_validation())
    assert temperatures[0] == temperatures[1]


def test_disabled_scaling_removes_an_earlier_temperature():
    scaling = TemperatureScaling()
    scaling.load({"temperature": 2.0})
    assert scaling.divisor == 1
    scaling.add_case("a", *case(0), FULL_DOMAIN)
    assert scaling.end_validation() is None
    assert scaling.temperature is None


def test_validations_are_independent():
    scaling = validated("abc")
    scaling.add_case("d", *case(ord("d")), FULL_DOMAIN)
    assert scaling.end_validation() == validated("d").temperature


def test_temperature_does_not_depend_on_the_order_of_cases():
    assert validated("abcd").temperature == validated("dbca").temperature


def test_two_processes_fit_the_same_temperature_as_one(two_processes):
    for split in (("ab", "cda"), ("dca", "ba")):
        assert (
            two_processes(lambda rank, split=split: validated(split[rank]).temperature)
            == [validated("abcd").temperature] * 2
        )


def test_temperature_is_restored_from_a_checkpoint(tmp_path):
    scaling, checkpoint = validated(), {"epoch": 3}
    scaling.save(checkpoint)
    assert checkpoint == {"epoch": 3, "temperature": scaling.temperature}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    other = TemperatureScaling(True)
    other.load(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert other.divisor == scaling.temperature


@pytest.mark.parametrize("checkpoint", [{}, {"temperature": None}], ids=["no entry", "empty entry"])
def test_checkpoint_without_temperature_raises_an_error_if_it_is_needed(checkpoint):
    scaling = validated()
    scaling.load(checkpoint)
    with pytest.raises(ValueError, match=MISSING):
        _ = scaling.divisor
    disabled = TemperatureScaling()
    disabled.load(checkpoint)
    assert disabled.divisor == 1
