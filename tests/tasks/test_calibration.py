"""Temperature scaling: what it is fitted to, and what a checkpoint knows of it."""

import pytest
import torch

from cm_lightning.tasks.calibration import TemperatureScaling

MISSING = "takes the temperature of the checkpoint's epoch, and this checkpoint does not hold one"
SHAPE = (20, 30)
EVERYWHERE = torch.ones(SHAPE, dtype=torch.uint8)


def case(seed, factor=3.0):
    """Logits that are over-confident by a factor, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, *SHAPE, generator=generator)
    probabilities = logits.flatten(1).T.softmax(dim=1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0].reshape(SHAPE)
    return factor * logits, labels


def validated(names="abc", enabled=True):
    scaling = TemperatureScaling(enabled)
    for name in names:
        scaling.add_case(name, *case(ord(name)), EVERYWHERE)
    scaling.end_validation()
    return scaling


def test_the_factor_by_which_logits_are_too_large_is_found():
    scaling = validated()
    assert scaling.temperature == pytest.approx(3, rel=0.15)
    assert scaling.divisor == scaling.temperature


def test_voxels_that_are_not_insonified_do_not_count():
    logits, labels = case(0)
    domain = EVERYWHERE.clone()
    domain[10:] = 0
    nonsense = labels.clone()
    nonsense[10:] = logits.argmin(dim=0)[10:]
    temperatures = []
    for shown in (labels, nonsense):
        scaling = TemperatureScaling(True)
        scaling.add_case("a", logits, shown, domain)
        temperatures.append(scaling.end_validation())
    assert temperatures[0] == temperatures[1]


def test_disabled_it_fits_nothing_and_forgets_an_earlier_temperature():
    scaling = TemperatureScaling()
    scaling.load({"temperature": 2.0})
    assert scaling.divisor == 1
    scaling.add_case("a", *case(0), EVERYWHERE)
    assert scaling.end_validation() is None
    assert scaling.temperature is None


def test_every_validation_begins_anew():
    scaling = validated("abc")
    scaling.add_case("d", *case(ord("d")), EVERYWHERE)
    assert scaling.end_validation() == validated("d").temperature


def test_the_order_of_cases_does_not_matter_to_the_last_digit():
    assert validated("abcd").temperature == validated("dbca").temperature


def test_two_processes_that_share_a_case_fit_as_one_does(two_processes):
    for split in (("ab", "cda"), ("dca", "ba")):  # who has a case does not matter either
        assert (
            two_processes(lambda rank, split=split: validated(split[rank]).temperature)
            == [validated("abcd").temperature] * 2
        )


def test_temperature_survives_a_checkpoint(tmp_path):
    scaling, checkpoint = validated(), {"epoch": 3}
    scaling.save(checkpoint)
    assert checkpoint == {"epoch": 3, "temperature": scaling.temperature}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    other = TemperatureScaling(True)
    other.load(torch.load(tmp_path / "a.ckpt", weights_only=True))
    assert other.divisor == scaling.temperature


@pytest.mark.parametrize("checkpoint", [{}, {"temperature": None}], ids=["no entry", "empty entry"])
def test_a_checkpoint_without_a_temperature_is_named_where_it_is_needed(checkpoint):
    scaling = validated()
    scaling.load(checkpoint)
    with pytest.raises(ValueError, match=MISSING):
        _ = scaling.divisor
    disabled = TemperatureScaling()
    disabled.load(checkpoint)
    assert disabled.divisor == 1
