"""Signals that arrive where Python drops exceptions."""

import ctypes
import signal
import socket
import sys
import time
from multiprocessing.resource_sharer import _ResourceSharer

import pytest

from cm_lightning.interruption import Terminated, leave_interruptions_to_main_process, stop_signals_as_exceptions


@pytest.fixture(autouse=True)
def _accept_ctrl_c():
    """Use Python's own handler, which a background process of a shell does not have."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


class Loader:
    """An object whose destructor is interrupted."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def in_a_destructor(number):
    Loader(number)


def in_a_callback_of_c(number):
    function = ctypes.CFUNCTYPE(None)
    function(lambda: signal.raise_signal(number))()


@pytest.mark.parametrize("interrupt", [in_a_destructor, in_a_callback_of_c])
@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated), (signal.SIGINT, KeyboardInterrupt)],
)
def test_an_interruption_that_python_drops_is_raised_afterwards(interrupt, number, error):
    reached = []

    def run():
        interrupt(number)
        reached.append("after the callback")
        time.sleep(30)

    with pytest.raises(error), stop_signals_as_exceptions():
        run()
    assert reached == ["after the callback"]


def test_other_dropped_errors_are_reported_as_before(monkeypatch):
    reported = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))
    with stop_signals_as_exceptions():
        ctypes.CFUNCTYPE(None)(lambda: 1 / 0)()
    assert reported == [ZeroDivisionError]


def test_a_second_signal_does_not_interrupt_the_clean_up_of_the_first():
    cleaned = []

    def run():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)
            cleaned.append("file")

    with pytest.raises(Terminated) as error, stop_signals_as_exceptions():
        run()
    assert cleaned == ["file"]
    assert error.value.number == signal.SIGTERM


def test_workers_do_not_report_that_the_main_process_is_gone(capsys, monkeypatch):
    """The thread of a worker that shares tensors calls the hook if the main process ends while it fetches one."""
    monkeypatch.setattr("sys.excepthook", sys.__excepthook__)
    leave_interruptions_to_main_process()
    sharer = _ResourceSharer()
    address, _ = sharer.register(lambda connection: None, lambda: None)
    with socket.socket(socket.AF_UNIX) as main_process:
        main_process.connect(address)
    sharer.stop(timeout=5)
    assert "Traceback" not in capsys.readouterr().err
    sys.excepthook(ValueError, ValueError("a defect"), None)
    assert "a defect" in capsys.readouterr().err
