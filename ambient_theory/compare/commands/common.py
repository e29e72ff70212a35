"""What `compare`, `price` and `budget` share: the records that they are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ambient_theory.shared.reading import Reading

NOT_YOURS = (
    "not your data: 8x8 Fashion-MNIST and printed tables, which ship with ambient; name your own runs or .jsonl files."
)
Records = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run directories, JSONL files of records, or directories that hold some; none = what ships with ambient."
    ),
]


def load(records: list[Path] | None, shipped: bool = False) -> Reading:
    """The records asked for; the shipped ones if none is, or with them if `shipped`."""
    from ambient_theory.compare.cells.grouping import lacking, read_shipped
    from ambient_theory.shared.errors import DataError
    from ambient_theory.shared.reading import Reading, read

    own = Reading((), 0, 0)
    for path in records or ():
        found = read(path)
        if problem := next(filter(None, map(lacking, found.records)), ""):
            raise DataError(f"{path}: {problem}")
        own += found
    if records and not own.records:
        raise DataError(
            f"no record in {', '.join(map(str, records))}: name finished runs, or .jsonl files that hold some"
        )
    return own + read_shipped() if shipped or not records else own
