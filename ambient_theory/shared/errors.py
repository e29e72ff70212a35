"""Errors that a user can cause, each with the exit code its command leaves with."""

from __future__ import annotations

from ambient_theory.shared.plain_text import printable_line

LONGEST = 4000
"""Characters of a message; what was given may be of any length."""


def one_sentence(text: str) -> str:
    """The text as one printable line, whatever text of others is in it; of a long one the middle is left out."""
    line, half = printable_line(text), LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} ... {line[-half:]}"


class AmbientError(Exception):
    """One clear sentence (`one_sentence`) for the user: what was given, what is allowed, what to do."""

    exit_code = 1

    def __init__(self, message: str = ""):
        super().__init__(one_sentence(message))


def first_line(error: BaseException, limit: int = 120) -> str:
    """First line of an error's message for a sentence of ours, cut to `limit` characters; its type if it has none."""
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)[:limit]


class UsageError(AmbientError, ValueError):
    """An option, a config or a combination of them is not allowed (exit code 2)."""

    exit_code = 2


class BusyError(UsageError):
    """Another process works on the same directory."""


class DataError(AmbientError, ValueError):
    """A data set, a record or another file that was read is unusable (exit code 3)."""

    exit_code = 3


class DivergedError(AmbientError, ArithmeticError):
    """Training met a NaN or an infinity (exit code 4)."""

    exit_code = 4


class PartialError(AmbientError):
    """Some cells of a sweep failed; the others are kept (exit code 5)."""

    exit_code = 5


class StoppedError(AmbientError):
    """Stopped early after saving; the same command continues (exit code 75, or 128 + signal)."""

    exit_code = 75

    def __init__(self, message: str, exit_code: int = 75):
        super().__init__(message)
        self.exit_code = exit_code
