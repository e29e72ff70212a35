"""Tables of text as people write them: CSV by comma, semicolon or tab, with or without a byte-order mark; JSON lines.

With a semicolon or tab a decimal comma is read as a point. Lines that begin with `#` before the header are comments.
Tables of numbers may do without a header, and with spaces between columns (`bare`).
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.errors import DataError, first_line
from ambient_theory.shared.parsing import parse_json

_DELIMITERS = (",", ";", "\t")
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

    bare: a first line of nothing but numbers is a row, and columns that no other delimiter parts are parted by spaces.
    """
    text = read_text(data, where)
    return _json_lines(text, where) if where.lower().endswith(".jsonl") else _csv(text, where, bare)


def _csv(text: str, where: str, bare: bool) -> Table:
    stream = io.StringIO(text, newline="")
    start = 0
    while (line := stream.readline()) and (line.startswith("#") or not line.strip()):
        start = stream.tell()
    delimiter = max(_DELIMITERS, key=lambda d: (line.count(d), -_DELIMITERS.index(d)))
    stream.seek(start)
    if bare and delimiter not in line and len(line.split()) > 1:
        delimiter = "\t"
        stream = io.StringIO("\n".join("\t".join(each.split()) for each in stream), newline="")
        line = "\t".join(line.split())
    first = [cell.strip() for cell in line.split(delimiter)]
    named = None if not (bare and all(map(_is_number, first))) else [f"c{i + 1}" for i in range(len(first))]
    reader = csv.DictReader(stream, named, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    try:
        rows = tuple(dict(row) for row in reader)
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{where}: not a readable CSV ({error})") from None
    if not rows:
        raise DataError(f"{where}: a table without rows")
    return Table(columns, rows, where, comma=delimiter != ",", header=named is None)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


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
