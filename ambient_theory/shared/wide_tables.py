"""Tables on a terminal: as wide as it is or `COLUMNS` says, 80 characters where neither does."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TypeVar

from ambient_theory.shared.plain_text import printable

C = TypeVar("C")
GAP = 3
"""Characters between two columns, a line included."""


def parts_that_fit(columns: Sequence[C], widths: Sequence[int], room: int) -> list[list[C]]:
    """The columns in parts that take at most `room` characters each, one column at least."""
    parts: list[list[C]] = [[]]
    used = 0
    for column, width in zip(columns, widths, strict=True):
        if parts[-1] and used + width + GAP > room:
            parts.append([])
            used = 0
        parts[-1].append(column)
        used += width + GAP
    return parts


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    keys: int = 0,
    right: Collection[int] = (),
) -> None:
    """A table on stdout; what its encoding cannot hold is written in words before the columns are laid out.

    keys: so many first columns say what a row is; where the others do not fit beside them, there are more tables, each
    with these, without the rows that have nothing else there. With 0, cells are broken instead. right: positions of the
    columns that are set to the right.
    """
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    plain = [[printable(text, sys.stdout.encoding) for text in row] for row in (columns, *rows)]
    widths = [max(len(line) for row in plain for line in row[c].split("\n")) for c in range(len(columns))]
    others = range(keys, len(columns))
    room = console.width - 1 - sum(widths[c] + GAP for c in range(keys))
    parts = parts_that_fit(others, widths[keys:], room) if keys else [list(others)]
    for part in parts:
        filled = [row for row in plain[1:] if part is parts[0] or any(row[c] for c in part)]
        if not filled:
            continue
        found = Table(title=printable(title, sys.stdout.encoding), title_justify="left")
        shown = [*range(keys), *part]
        for c in shown:
            found.add_column(plain[0][c], overflow="fold", justify="right" if c in right else "left")
        for row in filled:
            found.add_row(*(row[c] for c in shown))
        console.print(found, markup=False)
