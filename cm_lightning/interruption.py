"""Ctrl-C and signals that end a process, without a traceback and with the status that schedulers expect."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import AuthenticationError
from types import FrameType, TracebackType

# What holds for every command.
CONTINUE = "Interrupted. Completed files are kept; the same command starts again."
# Signals of schedulers, of kill and of a closed terminal. Windows has no SIGHUP.
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds until a dropped interruption is raised again.
RAISE_AGAIN_AFTER = 0.1


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
    """Raise :class:`Terminated` at SIGTERM and SIGHUP, so that files are completed or removed before the end.

    Python drops exceptions that are raised within a destructor, a callback of a weak reference (torch has many), or a
    callback of a C library, for example while Numba compiles. A dropped :class:`Terminated` or
    ``KeyboardInterrupt`` is raised again afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    process = os.getpid()
    is_stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        if os.getpid() != process:  # a worker of a data loader
            os._exit(128 + number)
        if not is_stopping:  # later signals do not interrupt what the first one completes or removes
            is_stopping = True
            raise Terminated(number)

    def raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
        nonlocal is_stopping
        match unraisable.exc_value:
            case Terminated(number=number):
                is_stopping = False
            case KeyboardInterrupt():
                number = signal.SIGINT
            case _:
                previous_hook(unraisable)
                return
        # Later, because an exception within this function would be dropped as well.
        send = threading.Timer(RAISE_AGAIN_AFTER, signal.pthread_kill, (threading.main_thread().ident, number))
        send.daemon = True
        send.start()

    # nohup ignores SIGHUP, which stays so.
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = [signal.signal(number, stop) for number in handled]
    previous_hook, sys.unraisablehook = sys.unraisablehook, raise_again
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook
        for number, handler in zip(handled, previous, strict=True):
            signal.signal(number, handler)


def leave_interruptions_to_main_process(worker: int = 0) -> None:
    """Prepare a worker of a data loader for an interruption, of which only the main process has to report.

    The main process ends its workers at Ctrl-C. It may be interrupted while it fetches a tensor from a worker, whose
    thread then finds a closed connection and would print a traceback.

    Args:
        worker: Number of the worker, which is not needed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = sys.excepthook

    def report_others(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not isinstance(error, EOFError | ConnectionError | AuthenticationError):
            report(kind, error, traceback)

    sys.excepthook = report_others


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
