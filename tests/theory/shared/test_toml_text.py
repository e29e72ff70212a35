"""What is written as TOML is read back as it was, or refused in a sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.parsing import parse_toml
from ambient_theory.shared.toml_text import toml_lines, toml_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8)


@given(st.dictionaries(TEXT, VALUES))
def test_any_table_is_read_back_as_it_was(table: dict[str, Any]) -> None:
    assert parse_toml(toml_lines(table)) == table


@pytest.mark.parametrize("value", [None, math.nan, "\ud800", {"a": [None]}, object()])
def test_what_toml_has_not_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="TOML cannot hold"):
        toml_value(value)


def test_text_is_one_printable_line() -> None:
    assert toml_value("a\x1b[31m\nb\u2028\x7f").isprintable()
