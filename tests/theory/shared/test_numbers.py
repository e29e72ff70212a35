"""Columns of numbers: the same values from every kind of file, and what is wrong in one is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.numbers import joined, one_column, read_numbers
from ambient_theory.shared.tables import read_table

X, S = np.array([1.5, -2.25, 1e-3, 4e5]), np.array([0.5, 1.0, 2.0, 0.25])


def written(folder: Path, name: str) -> Path:
    """X and S in one of the forms that people keep them in."""
    path = folder / name
    rows = list(zip(X.tolist(), S.tolist(), strict=True))
    if name == "comma.csv":
        path.write_text("# of a run\nx,s\n" + "".join(f"{a},{b}\n" for a, b in rows), encoding="utf-8-sig")
    elif name == "semicolon.csv":
        path.write_text(("x;s\n" + "".join(f"{a};{b}\n" for a, b in rows)).replace(".", ","))
    elif name == "tab.tsv":
        path.write_text("x\ts\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    elif name == "spaces.txt":
        path.write_text("x   s\n" + "".join(f"  {a}   {b}  \n" for a, b in rows))
    elif name == "lines.jsonl":
        path.write_text("".join(json.dumps({"x": a, "s": b}) + "\n" for a, b in rows))
    elif name == "both.npz":
        np.savez(path, x=X, s=S[:, None])
    elif name == "bare.csv":
        path.write_text("".join(f"{a},{b}\n" for a, b in rows))
    elif name == "savetxt.dat":
        np.savetxt(path, np.column_stack([X, S]))
    else:
        np.save(path, np.column_stack([X, S]))
    return path


NAMED = ("comma.csv", "semicolon.csv", "tab.tsv", "spaces.txt", "lines.jsonl", "both.npz")
UNNAMED = ("bare.csv", "savetxt.dat", "table.npy")


@pytest.mark.parametrize("name", [*NAMED, *UNNAMED])
def test_every_kind_of_file_gives_the_same_numbers(tmp_path: Path, name: str) -> None:
    numbers = read_numbers(written(tmp_path, name))
    x, s = ("x", "s") if name in NAMED else ("c1", "c2")
    assert numbers.named == (name in NAMED)
    assert numbers.column(x)[:, 0].tolist() == X.tolist()
    assert numbers.column(s)[:, 0].tolist() == S.tolist()
    both, labels = joined(numbers, [s, x])
    assert labels == (s, x)
    assert both.tolist() == np.column_stack([S, X]).tolist()


def test_missing_values_are_nan_and_their_rows_have_the_numbers_that_a_reader_sees(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    path.write_text("x,s\n1,2\n,3\nNA,4\n5,nan\n")
    numbers = read_numbers(path)
    lost = np.isnan(numbers.column("x")[:, 0])
    assert lost.tolist() == [False, True, True, False]
    assert numbers.rows(lost) == "2 rows (3, 4; the header is row 1)"
    np.save(tmp_path / "gaps.npy", [1.0, np.nan])
    arrays = read_numbers(tmp_path / "gaps.npy")
    assert arrays.rows(np.isnan(arrays.column("c1")[:, 0])) == "1 row (1; counted from 0)"
    with pytest.raises(DataError, match=r"missing in 1 row \(1; counted from 0\)"):
        one_column(tmp_path / "gaps.npy", "the noise")


def test_an_array_of_several_columns_is_several_coordinates(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.arange(6.0).reshape(3, 2), t=np.arange(4))
    numbers = read_numbers(tmp_path / "a.npz")
    values, labels = joined(numbers, ["X"])
    assert labels == ("X[0]", "X[1]")
    assert values.shape == (3, 2)
    with pytest.raises(DataError, match="X 3, t 4"):
        joined(numbers, ["X", "t"])


@pytest.mark.parametrize(
    ("name", "text", "column", "words"),
    [
        ("a.csv", "x,s\n1,2\n3\n", "x", "row 3 has another number of values"),
        ("a.csv", "x,s\n1,2\n3,4,5\n", "x", "row 3 has another number of values"),
        ("a.csv", "x,s\n1,2\nthree,4\n", "x", "row 3 has 'three'"),
        ("a.csv", "1,2\n3,four\n", "c2", "row 2 has 'four'"),
        ("a.csv", "x,s\ninf,2\n", "x", "finite"),
        ("a.csv", "x,x\n1,2\n", "x", "2 columns are named 'x'"),
        ("a.csv", "x,s\n", "x", "without rows"),
        ("a.jsonl", "{}\n", "x", "its rows are empty"),
        ("a.xlsx", "", "x", "known are .csv"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, name: str, text: str, column: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_numbers(tmp_path / name).column(column)


def test_a_column_of_words_that_nobody_asks_for_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,x\nfirst,1\nsecond,2\n")
    numbers = read_numbers(tmp_path / "a.csv")
    assert numbers.column("x").tolist() == [[1.0], [2.0]]
    with pytest.raises(UsageError, match="it has name, x"):
        numbers.column("y")
    with pytest.raises(DataError, match="no such file"):
        read_numbers(tmp_path / "b.csv")
    np.save(tmp_path / "c.npy", np.array([1j]))
    with pytest.raises(DataError, match="complex"):
        read_numbers(tmp_path / "c.npy").column("c1")


def test_a_decimal_comma_is_a_point_where_no_comma_parts_the_columns() -> None:
    for between in (" ", ";", "\t", "|"):
        table = read_table(f"x{between}s\n0,5{between}1\n".encode(), "t.txt")
        assert (table.number(0, "x"), table.number(0, "s")) == (0.5, 1.0)
    with pytest.raises(DataError, match="row 2 has '0;5'"):
        read_table(b"x,s\n0;5,1\n", "t.csv").number(0, "x")
