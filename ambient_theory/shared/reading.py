"""Records from wherever they lie: JSONL files, run directories, directories of either.

A training that is done holds its scores in a sealed `result.json`, `points[*].records`; a sweep, an evaluation and a
simulation write `.jsonl` files, which may be compressed (`.jsonl.gz`). The same score may be read twice (a run, and the
sweep that ran it): whoever groups records counts it once. Standard library only.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import read_json, read_sealed
from ambient_theory.shared.frames import flat, frame
from ambient_theory.shared.limits import unpacking
from ambient_theory.shared.parsing import parse_json
from ambient_theory.shared.records import Record

RUN_RESULT = "ambient.run-result/"
#: A training's log of metrics, which is no table of records.
METRICS_LOG = "metrics.jsonl"
LARGEST = 2**30
"""Bytes of text that a file of records may hold; a compressed one is not unpacked further."""
LONGEST_LINE = 2**24
"""Bytes of one record."""
_PART = 2**20


@dataclass(frozen=True, repr=False)
class Reading:
    """What was read: records, and from how many finished runs and JSONL files."""

    records: tuple[Record, ...]
    runs: int
    files: int

    def sentence(self) -> str:
        """`1,200 records of 12 runs and 1 file`."""
        parts = [_count(n, word) for n, word in ((self.runs, "run"), (self.files, "file")) if n]
        return f"{_count(len(self.records), 'record')} of {' and '.join(parts) or 'nothing'}"

    def __add__(self, other: Reading) -> Reading:
        return Reading(self.records + other.records, self.runs + other.runs, self.files + other.files)

    def __repr__(self) -> str:
        return f"Reading({self.sentence()})"

    def to_frame(self) -> Any:
        """The records as a `pandas.DataFrame`, one row a record, what is `extra` in columns of its own. Raises
        UsageError without pandas."""
        return frame(flat(r.to_dict()) for r in self.records)

    def to_dict(self) -> dict[str, int]:
        return {"records": len(self.records), "runs": self.runs, "files": self.files}


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def read(*paths: str | os.PathLike[str]) -> Reading:
    """Records of JSONL files, of run directories, and of every run, `*.jsonl` and `*.jsonl.gz` below a directory.

    Raises DataError naming file and line where a record cannot be read, and where a path holds none.
    """
    records: list[Record] = []
    runs = files = 0
    for path in map(Path, paths):
        for source in _sources(path):
            if source.name == "result.json":
                records += _run(source)
                runs += 1
            else:
                records += _lines(source)
                files += 1
    return Reading(tuple(records), runs, files)


def read_records(*paths: str | os.PathLike[str]) -> list[Record]:
    """The records of `read`."""
    return list(read(*paths).records)


def _sources(path: Path) -> list[Path]:
    """Files that hold records: the file itself, or those below a directory."""
    if not path.is_dir():
        if path.name == "result.json" and not _is_run(path):
            raise DataError(f"{path}: not the result of a training")
        return [path]
    found = [p for pattern in ("*.jsonl", "*.jsonl.gz") for p in path.rglob(pattern) if p.name != METRICS_LOG]
    found += [p for p in path.rglob("result.json") if _is_run(p)]
    if found:
        return sorted(found)
    if (path / "manifest.json").exists():
        raise DataError(f"{path}: this run has no scores yet; the command that started it continues it")
    raise DataError(f"{path}: no finished run and no .jsonl file of records in this directory")


def _is_run(path: Path) -> bool:
    """Whether a result.json is a training's (the ledger of a simulation has files of that name too)."""
    body = read_json(path)
    return isinstance(body, dict) and str(body.get("schema", "")).startswith(RUN_RESULT)


def _run(path: Path) -> Iterator[Record]:
    """Records of every scored point of a finished run."""
    points: Any = read_sealed(path).get("points")
    try:
        rows = [row for point in points for row in point["records"]]
    except (TypeError, KeyError):
        raise DataError(f"{path}: holds no scored points") from None
    for number, row in enumerate(rows, 1):
        try:
            yield Record.from_dict(row)
        except DataError as error:
            raise DataError(f"{path}: record {number}: {error}") from None


def _lines(path: Path) -> Iterator[Record]:
    for number, line in _numbered(path):
        try:
            yield Record.from_dict(parse_json(line))
        except ValueError as error:  # a DataError too
            raise DataError(f"{path}:{number}: {error}") from None


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, each with its number from 1."""
    number, total, rest = 0, 0, b""
    try:
        with path.open("rb") as raw:
            file = unpacking(raw, path) if path.suffix == ".gz" else raw
            while part := file.read(_PART):
                total += len(part)
                if total > LARGEST:
                    raise DataError(
                        f"{path}: holds more than {LARGEST:,} bytes of text, too much for a file of records"
                    )
                if not rest and not part.strip():
                    number += part.count(b"\n")
                    continue
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    raise DataError(f"{path}:{number + len(lines) + 1}: more than {LONGEST_LINE:,} bytes: no record")
                for line in lines:
                    number += 1
                    if line.strip():
                        yield number, line
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if rest.strip():
        yield number + 1, rest
