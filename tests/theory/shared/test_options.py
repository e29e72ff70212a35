"""An option is one field: the command, its help, the keys of files and the table in the docs are made from it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import (
    FORMS,
    REQUIRED,
    Checked,
    Given,
    from_mapping,
    option,
    options_table,
    with_options,
)


@dataclass(frozen=True, kw_only=True)
class Optimiser(Checked):
    """What an optimiser is told."""

    lr: float = option(2e-3, "Peak learning rate", above=0)
    ramp_nimg: int = option(10_000, "Warm-up", form="images", flag="--ramp", at_least=0)
    noise: float = option(0.0, "Noise in the data", key="sigma", at_least=0)
    kind: str = option("adam", "Which one", choices=("adam", "muon"), panel="Kinds")
    limit: float = option(math.inf, "Largest norm", at_least=0, finite=False)
    names: tuple[str, ...] = option((), "Names, several times", flag="--name")
    decay: float | None = option(None, "Decay", at_most=1, shown_default="by preset")
    mirror: bool = option(False, "Mirror")
    secret: int = option(3, "Set by the program alone", on_command_line=False)


@dataclass(frozen=True, kw_only=True)
class Extended(Optimiser):
    """With one field more, made up for the test."""

    made_up: float = option(0.5, "A made-up strength", at_least=0, at_most=1, panel="Inventions")


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def app(seen: list[object]) -> typer.Typer:
    @with_options
    def whole(values: Extended, extra: Annotated[int, typer.Option(help="Another.")] = 1) -> None:
        seen.append(values)

    @with_options
    def given(values: Given[Extended]) -> None:
        seen.append(values)

    made = typer.Typer()
    made.command("whole")(whole)
    made.command("given")(given)
    return made


def run(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), terminal_width=200)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def test_a_made_up_field_is_a_flag_a_help_a_key_and_a_row_of_the_docs(app: typer.Typer, seen: list[object]) -> None:
    run(app, "given", "--made-up", "0.25")
    assert seen.pop() == Given(Extended, {"made_up": 0.25})
    text = run(app, "whole", "--help")
    assert "--made-up" in text
    assert "A made-up strength. Default: 0.5." in re.sub(r"\s*[│]\s*\n[│]\s*", " ", text)
    assert "Inventions" in text
    assert from_mapping(Extended, {"made_up": 1}).made_up == 1.0
    assert "| `--made-up` | `made_up` | 0.5 | A made-up strength (>= 0, <= 1) |" in options_table(Extended)
    # the class without the field has none of it
    assert "made" not in options_table(Optimiser)
    with pytest.raises(UsageError, match=r"unknown setting.*made_up"):
        from_mapping(Optimiser, {"made_up": 1})


def test_a_class_gives_an_object_with_defaults_and_given_what_was_given(app: typer.Typer, seen: list[object]) -> None:
    run(app, "whole", "--lr", "0.1", "--name", "a", "--name", "b", "--mirror")
    assert seen.pop() == Extended(lr=0.1, names=("a", "b"), mirror=True)
    run(app, "given", "--ramp", "2k", "--sigma", "0.2", "--no-mirror")
    given = seen.pop()
    assert isinstance(given, Given)
    assert given.values == {"ramp_nimg": 2000, "sigma": 0.2, "mirror": False}
    assert given.over(Extended(lr=7.0)) == Extended(lr=7.0, ramp_nimg=2000, noise=0.2)
    run(app, "given")
    assert seen.pop() == Given(Extended, {})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": 0}, "lr 0 is not allowed: it must be > 0"),
        ({"lr": math.nan}, "lr nan"),
        ({"lr": math.inf}, "finite"),
        ({"lr": "much"}, "lr must be of type float"),
        ({"lr": True}, "lr must be of type float"),
        ({"ramp_nimg": 1.5}, "ramp_nimg must be of type int"),
        ({"ramp": "2q"}, "200k"),
        ({"ramp": 1, "ramp_nimg": 2}, "given twice"),
        ({"kind": "sgd"}, "adam, muon"),
        ({"names": "abc"}, "names must be a list"),
        ({"decay": 2.0}, "decay 2 is not allowed: it must be <= 1"),
        ({"lr": None, "kind": None}, "must not be null"),
        ({"noise": 0.2}, "unknown setting.*noise.*sigma"),
        ({"sigma": -1}, "sigma -1"),
    ],
)
def test_a_broken_rule_is_said_with_what_is_allowed(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_mapping(Optimiser, {"kind": "adam", **values})


def test_what_is_written_is_read_again() -> None:
    made = Optimiser(lr=0.5, names=("x",), decay=0.25)
    assert from_mapping(Optimiser, made.to_dict()) == made
    assert made.to_dict()["limit"] is None  # JSON has no infinity
    assert made.to_dict()["sigma"] == 0.0


def test_rules_hold_for_objects_made_in_python_too() -> None:
    with pytest.raises(UsageError, match="kind 'sgd' is not one of adam, muon"):
        Optimiser(kind="sgd")


@dataclass(frozen=True, kw_only=True)
class Needed(Checked):
    """With an option that has no default."""

    level: float = option(REQUIRED, "The level", above=0)
    sizes: tuple[float, ...] = option((1.0,), "Sizes", above=0, flag="--size")
    count: int = option(5, "How many", form="count", at_least=1)


def test_an_option_without_a_default_must_be_given(seen: list[object]) -> None:
    @with_options
    def needs(values: Needed) -> None:
        seen.append(values)

    app = typer.Typer()
    app.command()(needs)
    missing = CliRunner().invoke(app, [])
    assert missing.exit_code == 2
    assert "--level" in missing.output
    run(app, "--level", "0.5")
    assert seen.pop() == Needed(level=0.5)
    with pytest.raises(TypeError, match="level"):
        Needed()
    assert "| `--level` | `level` | required | The level (> 0) |" in options_table(Needed)


def test_the_rule_of_a_list_is_that_of_each_member() -> None:
    assert Needed(level=1.0, sizes=(0.5, 2.0)).sizes == (0.5, 2.0)
    for bad in ((0.5, 0.0), (math.nan,), (math.inf,)):
        with pytest.raises(UsageError, match="sizes"):
            Needed(level=1.0, sizes=bad)


def test_counts_are_whole_numbers_in_any_notation() -> None:
    assert from_mapping(Needed, {"level": 1, "count": "1e5"}).count == 100_000
    for bad in ("many", "nan", "inf", "0"):
        with pytest.raises(UsageError, match="count"):
            from_mapping(Needed, {"level": 1, "count": bad})


def test_what_the_program_sets_has_no_flag(app: typer.Typer) -> None:
    assert "--secret" not in run(app, "whole", "--help")


@pytest.mark.parametrize(
    ("form", "text"), [("images", "9" * 400), ("images", "9" * 5000), ("integers", "1," + "9" * 5000)]
)
def test_a_number_of_any_length_is_a_sentence(form: str, text: str) -> None:
    with pytest.raises(UsageError, match=r"^lr .*: give"):
        FORMS[form](text, "lr")
