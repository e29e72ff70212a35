"""Tables of text as people write them: CSV by comma, semicolon, tab, | or spaces, with or without a byte-order mark;
JSON lines.

Where no comma parts the columns, a decimal comma is read as a point. Lines that begin with `#` before the header are
comments. Tables of numbers may do without a header (`bare`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.errors import DataError, first_line
from ambient_theory.shared.parsing import parse_json

_DELIMITERS = (",", ";", "\t", "|")
DELIMITERS = "comma, semicolon, tab, | or spaces"
"""What may stand between columns, for messages."""
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Table:
    """columns: names as written. rows: text (or a number, of JSON) by column. comma: whether 0,5 is a number. header:
    whether the file names its columns; otherwise they are c1, c2, ..."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    where: str
    comma: bool = False
    header: bool = True

    def row_number(self, row: int) -> int:
        """What a person calls a row: the header, where there is one, is 1."""
        return row + 1 + self.header

    def number(self, row: int, column: str) -> float:
        """A value as a number. Raises DataError naming the row (`row_number`)."""
        text = self.rows[row].get(column)
        try:
            if isinstance(text, bool) or text is None:
                raise ValueError("nothing" if text is None else "a truth value")
            value = float(text.strip().replace(",", ".") if isinstance(text, str) and self.comma else text)
        except (TypeError, ValueError):
            shown = repr(text)[:40]
            raise DataError(
                f"{self.where}: the column {column!r} must hold a number in each row; "
                f"row {self.row_number(row)} has {shown}"
            ) from None
        if not math.isfinite(value):
            raise DataError(
                f"{self.where}: the column {column!r} must hold finite numbers; row {self.row_number(row)} has {value}"
            )
        return value


def read_text(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 where its byte-order mark says so."""
    try:
        return data.decode(_MARKS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_table(data: bytes, where: str, bare: bool = False) -> Table:
    """The table in a .csv, .tsv or .jsonl file. Raises DataError for what is not one.

    bare: a first line of nothing but numbers is a row.
    """
    text = read_text(data, where)
    return _json_lines(text, where) if where.lower().endswith(".jsonl") else _csv(text, where, bare)


def _csv(text: str, where: str, bare: bool) -> Table:
    stream = io.StringIO(text, newline="")
    start = 0
    while (line := stream.readline()) and (line.startswith("#") or not line.strip()):
        start = stream.tell()
    delimiter = max(_DELIMITERS, key=lambda d: (line.count(d), -_DELIMITERS.index(d)))
    if delimiter not in line and len(line.split()) > 1:
        return _by_spaces(text[start:], where, bare)
    stream.seek(start)
    named = _unnamed([cell.strip() for cell in line.split(delimiter)]) if bare else None
    reader = csv.DictReader(stream, named, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    try:
        rows = tuple(dict(row) for row in reader)
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{where}: not a readable CSV ({error})") from None
    if delimiter == "|":  # as Markdown has it, with a | at both ends and a rule below the header
        columns = tuple(column.strip() for column in columns if column.strip())
        plain = [{key.strip(): str(value).strip() for key, value in row.items() if key} for row in rows]
        rows = tuple(row for row in plain if set("".join(row.values())) - set("-: "))
    if not rows:
        raise DataError(f"{where}: a table without rows")
    return Table(columns, rows, where, comma=delimiter != ",", header=named is None)


def _unnamed(first: Sequence[str]) -> list[str] | None:
    """Names for the columns of a table whose first line is nothing but numbers."""
    return [f"c{i + 1}" for i in range(len(first))] if all(map(_is_number, first)) else None


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _by_spaces(text: str, where: str, bare: bool) -> Table:
    """A table whose columns stand apart by spaces: names of files have none then."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    unnamed = _unnamed(lines[0]) if bare else None
    columns, rows = (tuple(lines[0]), lines[1:]) if unnamed is None else (tuple(unnamed), lines)
    if not rows:
        raise DataError(f"{where}: a table without rows")
    for number, row in enumerate(rows, 1 + (unnamed is None)):
        if len(row) != len(columns):
            raise DataError(
                f"{where}: columns stand apart by spaces, and row {number} has {len(row)} of {len(columns)}: names "
                "with spaces need a comma, semicolon, tab or | between the columns"
            )
    held = tuple(dict(zip(columns, row, strict=True)) for row in rows)
    return Table(columns, held, where, comma=True, header=unnamed is None)


def _json_lines(text: str, where: str) -> Table:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{where}: line {number} is not valid JSON ({first_line(error)})") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: line {number} must hold an object, not a {type(row).__name__}")
        rows.append(row)
    if not rows:
        raise DataError(f"{where}: a table without rows")
    return Table(tuple(dict.fromkeys(key for row in rows for key in row)), tuple(rows), where)
