"""Text of others becomes a value or a ValueError with a short reason, whatever its depth, length and numbers."""

from __future__ import annotations

import pytest

from ambient_theory.shared.errors import DataError, StoppedError, UsageError, first_line
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
        ("[" * 101 + "]" * 101, "more than 100 levels"),
        ('{"a":' * 101 + "0" + "}" * 101, "more than 100 levels"),
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
        ("a = " + "[" * 101 + "]" * 101, "more than 100 levels"),
        (".".join("a" * 3000) + " = 1", "more than 100 levels"),
        ("x = 1\n[" + ".".join("a" * 100_000) + "]", "more than 100 levels"),
        (" . ".join(['"a b"', "'c'"] * 50_000) + " = 1", "more than 100 levels"),
        ("a = ", "Invalid value"),
    ],
)
def test_toml_of_any_kind_is_a_table_or_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_toml(text)


def test_what_is_right_is_read_as_before() -> None:
    assert parse_json('{"a": [18446744073709551615, -1, 1e300, "9' + LONG + '"]}')["a"][:3] == [2**64 - 1, -1, 1e300]
    assert parse_toml("a = 18446744073709551615\nb = [1, 2.5]")["a"] == 2**64 - 1
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_toml("a = " + "[" * 99 + "]" * 99)
    assert parse_toml(".".join("a" * 99) + " = 1")
    assert len(parse_toml("a = [" + "0.5, " * 20_000 + "]\nb = '" + "One. Two words. " * 500 + "'")["a"]) == 20_000


def test_an_error_is_one_line_of_bounded_length_that_keeps_its_ends() -> None:
    assert str(UsageError("a\x1b[2J: no\n\ud800")) == "a\\x1b[2J: no\\n\\ud800"
    message = str(DataError(f"f.toml: not {'x' * 10**6}: give a number"))
    assert len(message) < 5000
    assert message.startswith("f.toml: not xxx")
    assert message.endswith("xxx: give a number")
    assert first_line(ValueError("\n  \n a reason\nmore")) == "a reason"
    assert first_line(ValueError("\n")) == "ValueError"
    assert StoppedError("stopped\n", 130).exit_code == 130


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": 5}, "metric must be text, not 5"),
        ({"cell": ["a"]}, "cell must be text, or null"),
        ({"seed": "0"}, "seed must be a whole number"),
        ({"duration_nimg": 1.5}, "duration_nimg must be a whole number"),
        ({"wall_s": "soon"}, "wall_s must be finite"),
        ({"method": {"told_sigma": "x"}}, r"method\.told_sigma must be finite"),
        ({"method": {"weight": {"a": 1}}}, r"method\.weight must be text, a number"),
        ({"extra": {"floor": [1]}}, r"extra\.floor must be a finite number, or null"),
        ({"extra": {"interval95": [1]}}, r"extra\.interval95 must be two finite numbers"),
        ({"extra": {"n_l": -1.0}}, r"extra\.n_l must be a finite number > 0"),
        ({"extra": {"family": {}}}, r"extra\.family must be text"),
    ],
)
def test_a_field_of_another_kind_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        record(**changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"value": -1e308}, "value -1e+308"),
        ({"stderr": 2e100}, "stderr 2e+100"),
        ({"level": 1e200}, "level 1e+200"),
        ({"sigma_n": (0.2, 1e101)}, "sigma_n 1e+101"),
        ({"extra": {"floor": 1e101}}, r"extra\.floor 1e+101"),
        ({"extra": {"interval95": [0, 1e308]}}, r"extra\.interval95 1e+308"),
    ],
)
def test_a_number_whose_squares_may_sum_to_infinity_is_no_measured_one(changes: dict[str, object], named: str) -> None:
    with pytest.raises(DataError, match=named.replace("+", r"\+") + " is larger than any measured number"):
        record(**changes)
    assert record(value=-1e100, sigma_n=(0.2, 1e100)).value == -1e100


def test_whole_numbers_become_numbers_and_what_is_not_json_is_left_out() -> None:
    found = record(value=10**19, stderr=1, evaluation={"seed": 1, "sampler": {"rho": float("nan")}})
    assert [type(x) for x in (found.value, found.stderr)] == [float, float]
    assert found.evaluation == {"seed": 1, "sampler": {"rho": None}}


def test_names_in_records_are_lines() -> None:
    found = record(dataset="a\x1b[2Jb", cell="c\nd", regime="mixture")
    assert (found.dataset, found.cell, found.regime) == ("a\\x1b[2Jb", "c\\nd", "mixture")
