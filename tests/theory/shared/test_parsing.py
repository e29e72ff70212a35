"""Text of others becomes a value or a ValueError with a short reason, whatever its depth, length and numbers."""

from __future__ import annotations

import pytest

from ambient_theory.shared.parsing import parse_json, parse_toml
from ambient_theory.shared.plain_text import csv_field, printable_line
from ambient_theory.shared.records import Record

LONG, DEEP = "9" * 5000, 100_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LONG, "more than 20 digits"),
        ("1" + "0" * 400, "more than 20 digits"),
        ('{"a": [-' + LONG + "]}", "more than 20 digits"),
        ("[" * DEEP + "]" * DEEP, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_json_of_any_kind_is_a_value_or_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"a = {LONG}", "more than 20 digits"),
        (f"a = [[1{'0' * 30}]]", "more than 20 digits"),
        (f"[t]\na = -1{'0' * 30}", "more than 20 digits"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = ", "Invalid value"),
    ],
)
def test_toml_of_any_kind_is_a_table_or_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_toml(text)


def test_what_is_right_is_read_as_before() -> None:
    assert parse_json('{"a": [18446744073709551615, -1, 1e300, "9' + LONG + '"]}')["a"][:3] == [2**64 - 1, -1, 1e300]
    assert parse_toml("a = 18446744073709551615\nb = [1, 2.5]")["a"] == 2**64 - 1


def test_a_line_for_a_terminal_holds_nothing_that_steers_it() -> None:
    assert printable_line("a\x1b]0;title\x07b\u202ec\nd") == "a\\x1b]0;title\\x07b\\u202ec\\nd"
    assert printable_line("σ 0.2 – größer, 数") == "σ 0.2 – größer, 数"


def test_a_field_of_a_csv_is_never_a_formula() -> None:
    assert [csv_field(t) for t in ("=1+1", "+a", "-a", "@a", "a=1")] == ["'=1+1", "'+a", "'-a", "'@a", "a=1"]


def record(**changes: object) -> Record:
    fields: dict[str, object] = {
        "source": "train",
        "dataset": "digits",
        "n_clean": 1,
        "n_noisy": 0,
        "sigma_n": None,
        "metric": "fd",
        "extractor": "pixels",
        "value": 1.0,
        "stderr": None,
        "n_eval": 4,
        "seed": 0,
        "config_hash": "x",
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["value", "stderr", "sigma_n", "level", "n_clean", "n_eval"])
@pytest.mark.parametrize("number", [10**400, 10**5000], ids=["400 digits", "5000 digits"])
def test_a_number_that_no_float_holds_is_refused_in_a_sentence(name: str, number: int) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .{{0,200}}$"):
        record(**{name: number})


def test_names_in_records_are_lines() -> None:
    found = record(dataset="a\x1b[2Jb", cell="c\nd", regime="mixture")
    assert (found.dataset, found.cell, found.regime) == ("a\\x1b[2Jb", "c\\nd", "mixture")
