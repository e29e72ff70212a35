"""Values as TOML text that `parsing.parse_toml` reads back; standard library only.

Strings are written as in JSON, which TOML reads alike, but for what is not printable: that is escaped. Infinities are
`inf`; TOML has no null, so None cannot be written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ambient_theory.shared.errors import UsageError


def toml_lines(table: Mapping[str, Any]) -> str:
    """One line `key = value` an entry; a mapping becomes an inline table."""
    return "".join(f"{toml_key(k)} = {toml_value(v)}\n" for k, v in table.items())


def toml_key(name: str) -> str:
    """A bare key where TOML allows one, else a quoted one."""
    return name if name.replace("-", "_").isidentifier() and name.isascii() else toml_value(name)


def toml_value(value: Any) -> str:
    """A value in one line. Raises UsageError for one that TOML has not."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, str):
        return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(value, ensure_ascii=False))
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise UsageError(f"TOML cannot hold {value!r}")


def _escaped(c: str) -> str:
    if 0xD800 <= ord(c) <= 0xDFFF:
        raise UsageError(f"TOML cannot hold {c!r}: a name that is no Unicode text must be changed")
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"
