"""Leaving on a signal without losing anything: the first one asks, the second one leaves at once.

SIGINT, SIGTERM and SIGUSR2 (what queues send before the time is up) leave with 130, 143 and 75. Where work is in
memory (`graceful_stop`), the signal is a request, granted at the next step boundary after saving; where everything is
on disk already (`leave_on_signal`, `StopRequest.at_once`), it is granted where it arrives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from ambient_theory.shared.errors import StoppedError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR2: 75}
SAME_SIGNAL_S = 2.0
"""A rank hears a signal of the whole process group twice, once from its launcher: within this time it is one signal."""


class StopRequest:
    """Whether a signal has asked this process, or another rank, to leave, and with which exit code."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.since = 0.0
        self._saved: str | None = None

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.signal] if self.signal is not None else 0

    def flags(self) -> list[bool]:
        """Which signal came, in the order of EXIT_CODES: what ranks tell each other."""
        return [self.signal == number for number in EXIT_CODES]

    def adopt(self, flags: Sequence[bool]) -> None:
        """Take over a request that any rank has heard; all ranks then have the same one."""
        for number, asked in zip(EXIT_CODES, flags, strict=True):
            if asked:
                self.signal = signal.Signals(number)
                return
        self.signal = None

    def check(self, saved: str) -> None:
        """Raise StoppedError if a signal came; `saved` says what is safe. For phases whose work can be redone."""
        if self.signal is not None:
            raise StoppedError(f"stopped by {self.signal.name}: {saved}; the same command continues", self.exit_code)

    @contextlib.contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Inside this block a signal raises StoppedError where it arrives: nothing in memory is needed again."""
        self.check(saved)
        self._saved = saved
        try:
            yield
        finally:
            self._saved = None
        self.check(saved)

    def hear(self, number: int) -> None:
        """What the signal handler does."""
        now = time.monotonic()
        if self.signal is None:
            self.signal, self.since = signal.Signals(number), now
            if self._saved is not None:
                self.check(self._saved)


@contextlib.contextmanager
def graceful_stop(same_signal_s: float = 0.0) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR2 set the request inside this block; a second signal leaves at once.

    same_signal_s: signals within so many seconds of the first one are the same one.
    Outside the main thread signals cannot be caught: the request then never fires.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handler(number: int, _: FrameType | None) -> None:
        if request.signal is not None and time.monotonic() - request.since >= same_signal_s:
            os._exit(EXIT_CODES[signal.Signals(number)])
        request.hear(number)

    with _handling(handler):
        yield request


@contextlib.contextmanager
def leave_on_signal() -> Iterator[None]:
    """Inside this block a signal leaves where it arrives, with the documented exit code and no traceback.

    For commands, around everything that has nothing in memory to save; `graceful_stop` may be nested in it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        if heard:
            os._exit(EXIT_CODES[signal.Signals(number)])
        heard.append(number)
        name = signal.Signals(number).name
        print(f"ambient: stopped by {name}; the same command continues", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODES[signal.Signals(number)])

    with _handling(handler):
        yield


def leave_from_the_start() -> None:
    """From now on, and until a command listens itself, a signal leaves with the documented exit code and a sentence.

    For the program's first moments, while it imports: nothing has been begun.
    """

    def handler(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        os.write(2, f"ambient: stopped by {name} before anything was begun\n".encode())
        os._exit(EXIT_CODES[signal.Signals(number)])

    for number in EXIT_CODES:
        signal.signal(number, handler)


_left_alone: set[signal.Signals] = set()


@contextlib.contextmanager
def leave_alone(number: signal.Signals) -> Iterator[None]:
    """Inside this block `graceful_stop` and `leave_on_signal` let a signal keep the handler that it has."""
    _left_alone.add(number)
    try:
        yield
    finally:
        _left_alone.discard(number)


@contextlib.contextmanager
def _handling(handler: object) -> Iterator[None]:
    wanted = [number for number in EXIT_CODES if number not in _left_alone]
    previous = {number: signal.signal(number, handler) for number in wanted}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


ORPHAN_LOOKS_S, ORPHAN_LEAVES_S = 1.0, 3.0
"""How often a worker looks whether its parent lives, and how long it has to save and leave after it died."""


def leave_with_parent() -> None:
    """From now on this process ends within `ORPHAN_LOOKS_S + ORPHAN_LEAVES_S` seconds of its parent's death.

    For the workers of a pool: a parent that was killed cannot tell them, and they would compute on for nobody, on
    files that the next owner wants. They get SIGTERM first, so that what listens to it saves. May be called again.
    """
    if not any(t.name == _ORPHANED for t in threading.enumerate()):
        threading.Thread(target=_watch, args=(os.getppid(),), name=_ORPHANED, daemon=True).start()


_ORPHANED = "leave-with-parent"


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_LOOKS_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_LEAVES_S)
    os._exit(EXIT_CODES[signal.SIGTERM])
