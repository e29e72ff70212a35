"""Results as tables for those who work with pandas; it is asked for, never required."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from ambient_theory.shared.errors import UsageError


def frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A `pandas.DataFrame` with one row a mapping. Raises UsageError where pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        raise UsageError("a table needs pandas, which is not installed: pip install pandas, or use to_dict()") from None
    return pandas.DataFrame(list(rows))


def flat(row: Mapping[str, Any], within: str = "extra") -> dict[str, Any]:
    """The same with the entries of the mapping `within` as columns of their own; one whose name is taken already gets
    `within` before it."""
    outer = {name: value for name, value in row.items() if name != within}
    inner = row.get(within) or {}
    return outer | {name if name not in outer else f"{within}_{name}": value for name, value in inner.items()}
