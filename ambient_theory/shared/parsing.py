"""Text that others wrote, as values: JSON and TOML of any content, depth and length become a value or a ValueError.

Python's own parsers end in RecursionError on deep nesting, in ValueError about its own settings on long numbers, and
let whole numbers through that no float can hold. Here all of these are a ValueError with a short reason.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

LONGEST = 20
"""Characters of a whole number: every 64-bit one fits."""
DEEPEST = 100
"""Levels of nesting: whoever walks through what was read may call itself so often."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError with the reason."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises ValueError with the reason."""
    if _DOTTED.search(text):  # Python's parser takes quadratic time for such a key
        raise ValueError(_TOO_DEEP)
    try:
        table = tomllib.loads(text)
        deep = _is_deep(table)
        if not deep:
            _check(table)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError:  # Python names a setting of its own
        raise ValueError(_TOO_LONG) from None
    if deep:
        raise ValueError(_TOO_DEEP)
    return table


_TOO_LONG = f"a whole number of more than {LONGEST} digits"
_TOO_DEEP = f"nested too deeply, more than {DEEPEST} levels"


_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DOTTED = re.compile(rf"""(?<![\w."'-])(?:{_PART}){{{DEEPEST}}}""")
"""A dotted key of more than `DEEPEST` parts."""


def _whole(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(_TOO_LONG)
    return int(text)


def _is_deep(value: Any) -> bool:
    """Whether a value is nested more than `DEEPEST` levels."""
    level = [value]
    for _ in range(DEEPEST):
        inside = [v for v in level if isinstance(v, dict | list) and v]
        level = [v for outer in inside for v in (outer.values() if isinstance(outer, dict) else outer)]
    return any(isinstance(v, dict | list) for v in level)


def _check(value: Any) -> None:
    """Raise ValueError for a whole number anywhere in the value that is longer than `LONGEST`."""
    if isinstance(value, dict):
        for inner in value.values():
            _check(inner)
    elif isinstance(value, list):
        for inner in value:
            _check(inner)
    elif isinstance(value, int) and abs(value) >= 10**LONGEST:
        raise ValueError(_TOO_LONG)


_DECODER = json.JSONDecoder(parse_int=_whole)
