"""Text that others wrote, as values: JSON and TOML of any content, depth and length become a value or a ValueError.

Python's own parsers end in RecursionError on deep nesting, in ValueError about its own settings on long numbers, and
let whole numbers through that no float can hold. Here all of these are a ValueError with a short reason.
"""

from __future__ import annotations

import json
import tomllib
from typing import Any

LONGEST = 20
"""Characters of a whole number: every 64-bit one fits."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError with the reason."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text. Raises ValueError with the reason."""
    try:
        table = tomllib.loads(text)
        _check(table)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:  # Python names a setting of its own
        raise ValueError(_TOO_LONG) from None
    return table


_TOO_LONG = f"a whole number of more than {LONGEST} digits"


def _whole(text: str) -> int:
    if len(text) > LONGEST:
        raise ValueError(_TOO_LONG)
    return int(text)


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
