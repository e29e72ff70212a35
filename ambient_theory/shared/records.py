"""The record: the one form in which trainings, simulations and published tables speak of a result.

A record is one JSON line. `compare` reads nothing else. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_write_text

SCHEMA = "ambient.result/1"
SOURCES = ("train", "simulate", "published")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured (or published) value with its uncertainty.

    n_clean, n_noisy: training samples of each kind. sigma: noise standard deviation of the noisy samples (added
    noise in pixel units of [-1, 1] for images; total standard deviation for simulations), a list for several
    levels, None where nothing is noisy. metric: `fd` (Frechet distance), `kid`, `fid`, `w1`, ... ; lower is better.
    extractor: name and hash of the features, `name:hash8` (`none` for simulations). reference: what the samples were
    compared with (`heldout-clean`, `train-clean`, `truth`). value, stderr: the number and its standard error (None
    where unknown). n_eval: generated images, or replicates of a simulation. duration_nimg: images trained on.
    extra: anything else, JSON only.
    """

    source: str
    dataset: str
    n_clean: int
    n_noisy: int
    sigma: float | tuple[float, ...] | None
    metric: str
    extractor: str
    value: float
    stderr: float | None
    n_eval: int
    seed: int | None
    config_hash: str
    reference: str = "heldout-clean"
    duration_nimg: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    wall_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise DataError(f"schema {self.schema!r} is not {SCHEMA!r}")
        if self.source not in SOURCES:
            raise DataError(f"source {self.source!r} is not one of {', '.join(SOURCES)}")
        for name in ("n_clean", "n_noisy", "n_eval"):
            n = getattr(self, name)
            if isinstance(n, bool) or not isinstance(n, int) or n < 0:
                raise DataError(f"{name} must be a whole number >= 0, not {n!r}")
        levels = self.sigma if isinstance(self.sigma, tuple) else () if self.sigma is None else (self.sigma,)
        for s in levels:
            if isinstance(s, bool) or not isinstance(s, int | float) or not (math.isfinite(s) and s >= 0):
                raise DataError(f"sigma must be finite and >= 0, not {s!r}")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise DataError(f"value must be a finite number, not {self.value!r}")
        if self.stderr is not None and not (
            isinstance(self.stderr, int | float) and math.isfinite(self.stderr) and self.stderr >= 0
        ):
            raise DataError(f"stderr must be finite and >= 0, or null, not {self.stderr!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first."""
        d = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.sigma, tuple):
            d["sigma"] = list(self.sigma)
        d["versions"], d["extra"] = dict(self.versions), dict(self.extra)
        return {"schema": d.pop("schema"), **d}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Record:
        """Inverse of `to_dict`. Raises DataError on a missing, unknown or invalid field."""
        if not isinstance(d, Mapping):
            raise DataError(f"a record must be a JSON object, not {type(d).__name__}")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(d) - known):
            raise DataError(f"unknown field(s) {', '.join(unknown)}")
        sigma = d.get("sigma")
        try:
            return cls(**{**d, "sigma": tuple(sigma) if isinstance(sigma, list) else sigma})
        except TypeError as error:
            raise DataError(f"not a record: {error}".replace("Record.__init__() ", "")) from None


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Write records as JSON lines, atomically (a reader sees the old file or the new one)."""
    atomic_write_text(Path(path), "".join(json.dumps(r.to_dict(), sort_keys=False) + "\n" for r in records))


def read_records(*paths: str | os.PathLike[str]) -> list[Record]:
    """Read records from JSONL files, or from every `*.jsonl` below a directory.

    A `metrics.jsonl` (a training log) is not a table of records and is passed over in directories.
    Raises DataError naming file and line.
    """
    return [record for path in paths for record in _read(Path(path))]


def _read(path: Path) -> Iterator[Record]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*.jsonl") if p.name != "metrics.jsonl")
        if not files:
            raise DataError(f"{path}: no .jsonl file of records in this directory")
        for file in files:
            yield from _read(file)
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield Record.from_dict(json.loads(line))
        except (json.JSONDecodeError, DataError, RecursionError) as error:
            raise DataError(f"{path}:{number}: {error}") from None


def library_versions(*names: str) -> dict[str, str]:
    """Versions of Python, of this distribution and of the installed packages among `names`."""
    found = {"python": platform.python_version()}
    for name in ("ambient-worth", *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
