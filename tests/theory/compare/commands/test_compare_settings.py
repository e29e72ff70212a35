"""The options of `compare`, `price` and `budget`: one field each, seen in the help, in the docs and in refusals."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ambient_theory.compare.commands.document import SECTIONS, options_sections
from ambient_theory.shared.options import describe
from cli import app


def test_every_option_stands_in_the_help_of_a_command_and_in_the_docs():
    commands = ("compare", "price", "budget")
    shown = "".join(CliRunner().invoke(app, [c, "--help"], terminal_width=200).output for c in commands)
    for _, _, classes in SECTIONS:
        for cls in classes:
            for d in describe(cls):
                assert d.flag in shown, d.flag
                assert f"`{d.flag}`" in options_sections()
    assert "Prices and budget" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("price",), "--sigma is missing"),
        (("budget", "--price-clean", "1", "--budget", "5"), "--price-noisy is missing"),
        (("compare", "--confidence", "1"), "--confidence 1 is not allowed: it must be >= 0.5 and < 1"),
        (("price", "--sigma", "nan"), "--sigma nan is not allowed: it must be >= 0"),
    ],
)
def test_an_option_that_is_missing_or_breaks_its_rule_is_named(arguments, words):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 2
    assert words in result.stderr
