"""Ctrl-C and signals that end a process, without a traceback and with the status that schedulers expect."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# What holds for every command.
CONTINUE = "Interrupted. Completed files are kept; the same command starts again."
# Signals of schedulers, of kill and of a closed terminal. Windows has no SIGHUP.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Terminated(SystemExit):
    """A signal ended the process; its status is 128 plus the number of the signal, 143 for SIGTERM.

    Args:
        number: Number of the signal.
        message: One line that states what is kept and which command continues.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(128 + number)
        self.number = number
        self.message = message


@contextmanager
def stop_signals_as_exceptions() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM and SIGHUP, so that files are completed or removed before the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker of a data loader
            os._exit(128 + number)
        for other in STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    # nohup ignores SIGHUP, which stays so.
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = [signal.signal(number, stop) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, previous, strict=True):
            signal.signal(number, handler)


def end_with_parent() -> Callable[[], None] | None:
    """Return the function that a child process calls before its program, so that it ends when its parent is killed.

    Returns:
        The function; None where the operating system does not have this feature (it is one of Linux).
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    set_option = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        set_option(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # killed in the meantime
            os._exit(128 + signal.SIGTERM)

    return prepare
