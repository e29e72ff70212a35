"""Tables are as wide as the terminal: columns that do not fit are in further tables, each with what its rows are."""

from __future__ import annotations

import io
import sys

import pytest

from ambient_theory.shared.wide_tables import parts_that_fit, print_table


def test_a_table_stays_straight_where_the_terminal_has_no_greek(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "60")
    print_table("σ of images", ["what", "σ"], [["printed, σ 0.2", "1"], ["short", "2"]])
    out.flush()
    lines = out.buffer.getvalue().decode("ascii").splitlines()
    assert "sigma 0.2" in "".join(lines)
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.mark.parametrize("width", [40, 80, 240])
def test_columns_that_do_not_fit_come_with_their_keys_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ["cell", *(f"column {k}\nof many" for k in range(9))]
    rows = [[name, *(f"{name}{k} [1.25, 3.5]" for k in range(9))] for name in ("first", "second")]
    print_table("Many numbers", columns, rows, keys=1)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for row in rows:
        assert all(cell in text for cell in row[1:])  # none is broken
    tables = text.count("Many numbers")
    assert (tables == 1) == (width == 240)
    assert sum("first" in line and "[" in line for line in lines) == tables
    assert sum("cell" in line for line in lines) == tables


def test_a_further_table_leaves_out_rows_that_have_nothing_in_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = [["first", "1", "a note of many words here", ""], ["second", "", "", ""]]
    print_table("Notes", ["cell", "n", "note", "another remark of many words"], rows, keys=1)
    text = capsys.readouterr().out
    assert (text.count("first"), text.count("second")) == (2, 1)  # the last column is empty: no table for it
    assert "another" not in text


def test_a_column_wider_than_the_room_stands_alone() -> None:
    assert parts_that_fit("abcd", [5, 50, 5, 5], 30) == [["a"], ["b"], ["c", "d"]]
