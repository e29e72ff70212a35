"""Tables of text as people write them: CSV by comma, semicolon or tab, with or without a byte-order mark; JSON lines.

With a semicolon or tab a decimal comma is read as a point. Lines that begin with `#` before the header are comments.
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
    """columns: names as written. rows: text (or a number, of JSON) by column. comma: whether 0,5 is a number."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    where: str
    comma: bool = False

    def number(self, row: int, column: str) -> float:
        """A value as a number. Raises DataError naming the row (counted with the header as 1)."""
        text = self.rows[row].get(column)
        try:
            if isinstance(text, bool) or text is None:
                raise ValueError("nothing" if text is None else "a truth value")
            value = float(text.strip().replace(",", ".") if isinstance(text, str) and self.comma else text)
        except (TypeError, ValueError):
            shown = repr(text)[:40]
            raise DataError(
                f"{self.where}: the column {column!r} must hold a number in each row; row {row + 2} has {shown}"
            ) from None
        if not math.isfinite(value):
            raise DataError(f"{self.where}: the column {column!r} must hold finite numbers; row {row + 2} has {value}")
        return value


def read_text(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 where its byte-order mark says so."""
    try:
        return data.decode(_MARKS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_table(data: bytes, where: str) -> Table:
    """The table in a .csv, .tsv or .jsonl file. Raises DataError for what is not one."""
    text = read_text(data, where)
    return _json_lines(text, where) if where.lower().endswith(".jsonl") else _csv(text, where)


def _csv(text: str, where: str) -> Table:
    stream = io.StringIO(text, newline="")
    start = 0
    while (line := stream.readline()) and (line.startswith("#") or not line.strip()):
        start = stream.tell()
    delimiter = max(_DELIMITERS, key=lambda d: (line.count(d), -_DELIMITERS.index(d)))
    stream.seek(start)
    reader = csv.DictReader(stream, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    try:
        rows = tuple(dict(row) for row in reader)
        columns = tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{where}: not a readable CSV ({error})") from None
    if not rows:
        raise DataError(f"{where}: a table without rows")
    return Table(columns, rows, where, comma=delimiter != ",")


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
