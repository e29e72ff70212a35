"""Leaving on a signal without losing anything: the first one asks, the second one leaves at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ambient_theory.errors import StoppedError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR2: 75}


class StopRequest:
    """Whether a signal has asked this process to leave, and with which exit code."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.signal] if self.signal is not None else 0

    def check(self, saved: str) -> None:
        """Raise StoppedError if a signal came; `saved` says what is safe. For phases whose work can be redone."""
        if self.signal is not None:
            raise StoppedError(f"stopped by {self.signal.name}: {saved}; the same command continues", self.exit_code)


@contextlib.contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR2 set the request inside this block; a second signal leaves at once.

    Outside the main thread signals cannot be caught: the request then never fires.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handler(number: int, _: FrameType | None) -> None:
        if request.signal is not None:
            os._exit(EXIT_CODES[signal.Signals(number)])
        request.signal = signal.Signals(number)

    previous = {number: signal.signal(number, handler) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
