"""Kinds of values that others wrote: what a field of a record or of a manifest may hold, and the sentence where it
does not. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ambient_theory.shared.errors import DataError

Kind = tuple[Callable[[Any], bool], str]
"""(whether a value is of the kind, `must be ...`)"""


def is_number(value: Any, least: float = -math.inf) -> bool:
    """Whether a value is a finite number of at least `least`; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value) and bool(value >= least)
    except OverflowError:  # a whole number that no float can hold
        return False


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether a value is a whole number from `least` on that 64 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def _all_of(holds: Callable[[Any], bool], size: int | None = None) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list | tuple) and size in (None, len(v)) and all(map(holds, v))


TEXT: Kind = (lambda v: isinstance(v, str), "must be text")
SCALAR: Kind = (lambda v: isinstance(v, str | int | float), "must be text, a number or a truth value")
NUMBER: Kind = (is_number, "must be a finite number")
POSITIVE: Kind = (lambda v: is_number(v, 0) and v > 0, "must be a finite number > 0")
NOT_NEGATIVE: Kind = (lambda v: is_number(v, 0), "must be finite and >= 0")
COUNT: Kind = (is_whole, "must be a whole number >= 0 of at most 63 bits")
WHOLE: Kind = (lambda v: is_whole(v, -(2**63)), "must be a whole number of at most 64 bits")
OBJECT: Kind = (lambda v: isinstance(v, Mapping), "must be an object")
NUMBERS: Kind = (_all_of(is_number), "must be a list of finite numbers")
PAIR: Kind = (_all_of(is_number, 2), "must be two finite numbers")


def check_kind(name: str, value: Any, kind: Kind, more: str = "") -> None:
    """Raise DataError unless the value is of the kind. more: what else may be, for the message."""
    holds, words = kind
    if not holds(value):
        raise DataError(f"{name} {words}{more}, not {_short(value)}")


def check_kinds(values: Mapping[str, Any], kinds: Mapping[str, Kind], prefix: str = "") -> None:
    """`check_kind` of the values that are there and not null; others have no kind."""
    for name, kind in kinds.items():
        if values.get(name) is not None:
            check_kind(f"{prefix}{name}", values[name], kind, ", or null")


def _short(value: Any, limit: int = 60) -> str:
    """The value for a message."""
    try:
        text = repr(value)
    except ValueError:  # a whole number too long for Python to write out
        text = f"a whole number of {value.bit_length()} bits"
    return text if len(text) <= limit else text[:limit] + "..."
