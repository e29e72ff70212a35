"""What `compare`, `price` and `budget` share: the records that they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ambient_theory.shared.errors import DataError

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


@contextlib.contextmanager
def about(records: list[Path] | None) -> Iterator[None]:
    """What is wrong with the records, said in the block, begins with the files that they are from."""
    try:
        yield
    except DataError as error:
        if not records or any(str(path) in str(error) for path in records):
            raise
        more = ", ..." if len(records) > 3 else ""
        raise DataError(f"{', '.join(map(str, records[:3]))}{more}: {error}") from None


def load(records: list[Path] | None, shipped: bool = False) -> Reading:
    """The records asked for; the shipped ones if none is, or with them if `shipped`."""
    from ambient_theory.compare.cells.grouping import read_shipped
    from ambient_theory.shared.reading import Reading, read

    own = read(*records) if records else Reading((), 0, 0)
    if records and not own.records:
        raise DataError(
            f"no record in {', '.join(map(str, records))}: name finished runs, or .jsonl files that hold some"
        )
    return own + read_shipped() if shipped or not records else own
