"""Learning rate schedules, compared with closed forms."""

import pytest
import torch

from cm_lightning.tasks.schedules import create_schedule


def rates(name, epochs=10, warmup_epochs=0):
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = create_schedule(name, optimizer, epochs, warmup_epochs)
    values = []
    for _ in range(10):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_closed_forms():
    assert rates("constant") == [0.1] * 10
    assert rates("polynomial") == pytest.approx([0.1 * (1 - i / 10) ** 0.9 for i in range(10)])
    cosine = rates("cosine")
    assert cosine[0] == pytest.approx(0.1)
    assert cosine[5] == pytest.approx(0.05)
    assert sorted(cosine, reverse=True) == cosine


def test_warmup_is_linear():
    assert rates("constant", warmup_epochs=4)[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert rates("cosine", warmup_epochs=2)[2:] == pytest.approx(rates("cosine")[2:])


def test_plateau_halves_the_rate_if_the_metric_stops_increasing():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = create_schedule("plateau", optimizer, None)
    for epoch in range(12):
        schedule.step(min(epoch, 0.5))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    schedule.step(0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_invalid_settings_raise_errors():
    optimizer = torch.optim.Adam([torch.zeros(1)])
    with pytest.raises(ValueError, match=r"cosine needs trainer.max_epochs of at least 1, found -1"):
        create_schedule("cosine", optimizer, -1)
    with pytest.raises(ValueError, match=r"must not be negative, and must be 0 with .*; found 2 with 'plateau'"):
        create_schedule("plateau", optimizer, 10, 2)
