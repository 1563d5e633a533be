"""Lines of epochs, and the time that is left."""

import re
from types import SimpleNamespace

import torch

from cm_lightning.callbacks.progress import RunClock, RunProgressBar
from cm_lightning.main import main


def test_redirected_output_has_a_line_for_every_epoch_and_no_noise(muscle_arguments, run_folder, no_pictures, capfd):
    main(["fit", *muscle_arguments, "--trainer.max_epochs=2"])
    output = capfd.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("Epoch ")]
    number = r"[\d.e-]+"
    expected = [
        rf"Epoch {n} of 2: train/loss {number}, val/loss {number}, val/dice/mean {number}, 0:\d\d:\d\d left"
        for n in (1, 2)
    ]
    assert len(lines) == 2
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, lines, strict=True)), lines
    assert not re.search("litlogger|TPU available: False", output.out + output.err)


def test_time_left_is_that_of_the_epochs_of_this_process(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("cm_lightning.callbacks.progress.time.monotonic", lambda: now[0])
    clock, trainer = RunClock(), SimpleNamespace(current_epoch=4, max_epochs=10)
    clock.start(trainer)
    assert clock.left(trainer, 4) is None
    now[0] += 60
    assert clock.left(trainer, 6) == "0:02:00"  # 30 s for each of 4 epochs
    for unlimited in (-1, None):
        assert clock.left(SimpleNamespace(max_epochs=unlimited), 6) is None


def test_progress_bar_shows_the_time_left_but_no_number_of_the_run(monkeypatch):
    logger = SimpleNamespace(version=3, name="run")
    metrics = {"train/loss": torch.tensor(0.5)}
    trainer = SimpleNamespace(
        loggers=[logger], progress_bar_metrics=metrics, current_epoch=1, max_epochs=3, training=True
    )
    bar = RunProgressBar()
    assert set(bar.get_metrics(trainer, None)) == {"train/loss", "left"}
