"""What every command shares: errors in one sentence with the right exit code, stdout for results, stderr for talk."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import typer

from ambient_theory.shared.errors import AmbientError
from ambient_theory.shared.plain_text import plain_output, printable_line

P = ParamSpec("P")
R = TypeVar("R")

SPINNER, SPIN_S = "|/-\\", 0.1
"""Its pictures, and how long each is seen."""

_DISK_CODES = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP)
)
_DISK_ERRORS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turn errors that a user can cause into one sentence on stderr and the documented exit code.

    0 done, 1 internal, 2 usage or config, 3 bad data, 4 diverged, 5 partial, 75 stopped early and resumable,
    130/143 by signal.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        plain_output()
        try:
            return function(*args, **kwargs)
        except AmbientError as error:
            talk(f"ambient: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            talk("ambient: interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(141) from None
        except OSError as error:
            if error.errno in _DISK_CODES or isinstance(error, _DISK_ERRORS):
                where = f" ({error.filename})" if error.filename else ""
                talk(f"ambient: {error.strerror or error}{where}")
                raise typer.Exit(3) from None
            raise

    return wrapper


def say(text: str) -> None:
    """A sentence on stdout: broken between words on a terminal, one line elsewhere; nothing in it steers a terminal."""
    text = printable_line(text)
    if sys.stdout.isatty():
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_on_hyphens=False, break_long_words=False)
    print(text)


def talk(message: str, *, quiet: bool = False) -> None:
    """A line for the person, on stderr; what steers a terminal is not passed on."""
    if not quiet:
        print("\n".join(map(printable_line, message.split("\n"))), file=sys.stderr, flush=True)


@contextlib.contextmanager
def starting(what: str, *, quiet: bool = False) -> Iterator[None]:
    """On a terminal, say at once what is being waited for, turn a spinner with the seconds beside it, and wipe it away
    afterwards. Nothing else may be printed meanwhile."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    stop, shown = threading.Event(), [_spin(what, 0, 0)]
    spinner = threading.Thread(target=_turn, args=(what, stop, shown), daemon=True)
    spinner.start()
    try:
        yield
    finally:
        stop.set()
        spinner.join()
        with contextlib.suppress(OSError, ValueError):
            print("\r" + " " * shown[-1] + "\r", end="", file=sys.stderr, flush=True)


def _turn(what: str, stop: threading.Event, shown: list[int]) -> None:
    begun, turns = time.monotonic(), 0
    while not stop.wait(SPIN_S):
        turns += 1
        shown.append(_spin(what, turns, int(time.monotonic() - begun)))


def _spin(what: str, turns: int, seconds: int) -> int:
    """Draw the spinner over the last one; its width. A terminal that went away is no reason to stop."""
    line = f"{SPINNER[turns % len(SPINNER)]} {what} ..." + (f" {seconds} s" if seconds else "")
    with contextlib.suppress(OSError, ValueError):
        print(f"\r{line}", end="", file=sys.stderr, flush=True)
    return len(line)


def print_json(value: Any) -> None:
    """The result for a program, on stdout: one JSON document."""
    print(json.dumps(value, indent=1, allow_nan=False), flush=True)
