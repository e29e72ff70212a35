"""The spinner: on a terminal at once, turning, and gone afterwards; nowhere else."""

from __future__ import annotations

import io
import re
import time
import types

import pytest

from ambient_theory.shared import console
from ambient_theory.shared.console import SPINNER, starting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(console, "sys", types.SimpleNamespace(stderr=made))
    monkeypatch.setenv("TERM", "xterm")
    return made


def left_over(text: str) -> str:
    """What a line shows after carriage returns."""
    shown: list[str] = []
    for part in text.split("\r"):
        shown[: len(part)] = part
    return "".join(shown)


def test_it_is_there_at_once_and_gone_afterwards(terminal: Terminal) -> None:
    with starting("loading"):
        assert "loading ..." in left_over(terminal.getvalue())
    assert left_over(terminal.getvalue()).strip() == ""
    assert terminal.getvalue().endswith("\r")
    assert "\n" not in terminal.getvalue()


def test_it_turns_and_counts_seconds(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SPIN_S", 0.001)
    clock = iter(range(10_000))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with starting("loading"):
        while terminal.getvalue().count("loading") < 2 * len(SPINNER):
            time.sleep(0.001)
    frames = re.findall(r"\r(.) loading \.\.\.(?: (\d+) s)?", terminal.getvalue())
    assert "".join(picture for picture, _ in frames).startswith(2 * SPINNER)
    assert [seconds for _, seconds in frames][:3] == ["", "1", "2"]
    assert left_over(terminal.getvalue()).strip() == ""


def test_an_error_inside_leaves_nothing_behind(terminal: Terminal) -> None:
    with pytest.raises(ValueError, match="inside"), starting("loading"):
        raise ValueError("inside")
    assert left_over(terminal.getvalue()).strip() == ""


def test_a_terminal_that_goes_away_stops_nothing(terminal: Terminal) -> None:
    with starting("loading"):
        terminal.close()


@pytest.mark.parametrize("case", ["quiet", "dumb", "file"])
def test_elsewhere_nothing_is_printed(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    if case == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if case == "file":
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    with starting("loading", quiet=case == "quiet"):
        pass
    assert terminal.getvalue() == ""
