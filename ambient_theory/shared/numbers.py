"""Columns of numbers from files as people keep them: CSV, TSV, JSON lines, plain text, .npy and .npz.

    columns: x, sigma     of a table by its header; of JSON lines by key; of an .npz by the name of an array
    columns: c1, c2, ...  of a table without a header, and of the columns of an .npy

A value may be missing: an empty field, a word such as NA, null, NaN. It is NaN here, and whoever reads says which rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.npy import list_npz, load_npy, load_npz
from ambient_theory.shared.tables import Table, read_table

Floats = NDArray[np.float64]

TABLES = (".csv", ".tsv", ".jsonl", ".txt", ".dat")
SUFFIXES = (*TABLES, ".npy", ".npz")
MISSING = ("", "na", "n/a", "nan", "null", "none", "missing", ".", "-", "?")
"""Words, in any case of letters, of a value that is not there."""


@dataclass(frozen=True)
class Numbers:
    """A file of columns. named: whether the file itself names them. first: the number of its first row, as its reader
    counts (a header is row 1, arrays begin at 0). Values are read when they are asked for: a column of words that
    nobody wants is none of our business."""

    where: str
    names: tuple[str, ...]
    named: bool
    first: int
    _read: Callable[[str], Floats]

    def column(self, name: str) -> Floats:
        """(n, m): one column, or the m of an array; NaN where a value is missing.

        Raises UsageError for a name that the file does not have, DataError for values that are no numbers.
        """
        if name not in self.names:
            raise UsageError(f"{self.where} has no column {name!r}: it has {', '.join(self.names)}")
        if self.names.count(name) > 1:
            raise DataError(f"{self.where}: {self.names.count(name)} columns are named {name!r}: rename one")
        return self._read(name)

    def rows(self, where: NDArray[np.bool_], most: int = 6) -> str:
        """`3 rows (5, 17 and 21; ...)`: the rows of a mask, by the numbers that their reader sees."""
        found = (np.flatnonzero(where) + self.first).tolist()
        shown = ", ".join(map(str, found[:most])) + (", ..." if len(found) > most else "")
        counted = {0: "counted from 0", 1: "counted from 1", 2: "the header is row 1"}[self.first]
        return f"{len(found):,} row{'' if len(found) == 1 else 's'} ({shown}; {counted})"


def read_numbers(path: Path) -> Numbers:
    """The columns of a file. Raises DataError for one that is not there, not readable or of another kind."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path)
    if suffix == ".npy":
        return _npy(path)
    if suffix not in TABLES:
        raise DataError(f"{path}: not a file of numbers that is known; known are {', '.join(SUFFIXES)}")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    table = read_table(data, str(path), bare=True)
    if not table.columns:
        raise DataError(f"{path}: no column: its rows are empty")
    for row, values in enumerate(table.rows):
        if None in values or (suffix != ".jsonl" and None in values.values()):
            raise DataError(
                f"{path}: row {table.row_number(row)} has another number of values than the {len(table.columns)} "
                "columns"
            )
    return Numbers(
        str(path), table.columns, table.header, table.row_number(0), lambda name: _of_table(table, name)[:, None]
    )


def _of_table(table: Table, name: str) -> Floats:
    found = np.empty(len(table.rows))
    for row, values in enumerate(table.rows):
        value = values.get(name)
        lost = value is None or (isinstance(value, str) and value.strip().lower() in MISSING)
        found[row] = math.nan if lost else table.number(row, name)
    return found


def _npy(path: Path) -> Numbers:
    array = _as_floats(load_npy(path), str(path))
    names = tuple(f"c{i + 1}" for i in range(array.shape[1]))
    return Numbers(str(path), names, False, 0, lambda name: array[:, [names.index(name)]])


def _npz(path: Path) -> Numbers:
    names = tuple(list_npz(path))

    def read(name: str) -> Floats:
        return _as_floats(load_npz(path, only=[name])[name], f"{path}:{name}")

    return Numbers(str(path), names, True, 0, read)


def _as_floats(array: np.ndarray, where: str) -> Floats:
    if array.dtype.kind == "c":
        raise DataError(f"{where}: complex numbers: give real and imaginary part as two columns")
    if array.ndim > 2:
        raise DataError(f"{where}: shape {array.shape} is no list of numbers (n,) and no table of them (n, d)")
    found = array.astype(np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if np.isinf(found).any():
        raise DataError(f"{where}: {int(np.isinf(found).sum())} values are infinite")
    return found


def one_column(path: Path, what: str) -> Floats:
    """(n,) of a file that holds one column and nothing else. Raises DataError for more, and for missing values."""
    numbers = read_numbers(path)
    values = numbers.column(numbers.names[0]) if len(numbers.names) == 1 else np.zeros((0, 2))
    if values.shape[1] != 1:
        raise DataError(f"{path}: {what} is one column of numbers, and the file has {', '.join(numbers.names)}")
    if np.isnan(values).any():
        raise DataError(f"{path}: {what} is missing in {numbers.rows(np.isnan(values[:, 0]))}")
    return values[:, 0]


def joined(numbers: Numbers, names: Sequence[str]) -> tuple[Floats, tuple[str, ...]]:
    """(n, d) of several columns, and d names: those of an array of several columns are `X[0]`, `X[1]`, ...

    Raises as `Numbers.column`, and DataError for arrays of other lengths.
    """
    parts: Mapping[str, Floats] = {name: numbers.column(name) for name in names}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {size:,}" for name, size in lengths.items())
        raise DataError(f"{numbers.where}: columns of other lengths: {told}")
    labels = [
        name if part.shape[1] == 1 else f"{name}[{j}]" for name, part in parts.items() for j in range(part.shape[1])
    ]
    return np.concatenate(list(parts.values()), axis=1), tuple(labels)
