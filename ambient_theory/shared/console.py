"""What every command shares: errors in one sentence with the right exit code, stdout for results, stderr for talk."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import typer

from ambient_theory.shared.errors import AmbientError
from ambient_theory.shared.plain_text import plain_output, printable_line

P = ParamSpec("P")
R = TypeVar("R")

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
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) or isinstance(error, _DISK_ERRORS):
                where = f" ({error.filename})" if error.filename else ""
                talk(f"ambient: {error.strerror or error}{where}")
                raise typer.Exit(3) from None
            raise

    return wrapper


def talk(message: str, *, quiet: bool = False) -> None:
    """A line for the person, on stderr; what steers a terminal is not passed on."""
    if not quiet:
        print("\n".join(map(printable_line, message.split("\n"))), file=sys.stderr, flush=True)


@contextlib.contextmanager
def starting(what: str, *, quiet: bool = False) -> Iterator[None]:
    """On a terminal, say at once what is being waited for, and wipe it away afterwards."""
    shown = not quiet and sys.stderr.isatty()
    if shown:
        print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r" + " " * (len(what) + 4) + "\r", end="", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """The result for a program, on stdout: one JSON document."""
    print(json.dumps(value, indent=1, allow_nan=False), flush=True)
