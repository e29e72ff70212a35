"""The record: the one form in which trainings, simulations and published tables speak of a result.

A record is one JSON line (read by `ambient_theory.shared.reading`). `compare` reads nothing else. Standard library
only.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from ambient_theory.shared import record_schema_1
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_write_bytes, atomic_write_text, finite
from ambient_theory.shared.plain_text import printable_line
from ambient_theory.shared.record_fields import check_fields

SCHEMA = "ambient.result/2"
SOURCES = ("train", "simulate", "published")
HELDOUT_BEST = "heldout-best"
"""Checkpoint rule: of the candidates on the way, the one that did best on held-out images."""

CHECKPOINTS = ("last", HELDOUT_BEST)

NATS = "nats"
"""Metric of the total held-out denoising error, in nats an image; `denoise` is the error at one level."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured (or published) value with its uncertainty.

    n_clean, n_noisy: training samples of each kind. sigma_n: standard deviation of the noise in the data, beyond that
    of a clean sample (pixel units of [-1, 1] for images), a tuple for several levels, None where nothing is noisy or
    the level is unknown. metric: `fd` (Frechet distance), `kid`, `fid`, `w1`, `denoise`, ...; lower is better. level:
    the diffusion level of a metric that has one. extractor: name and hash of the features, `name:hash8` (`none` for
    simulations). reference: what the samples were compared with (`heldout-clean`, `train-clean`, `truth`). value,
    stderr: the number and its standard error (None where unknown). n_eval: generated images, or replicates of a
    simulation. duration_nimg: images trained on. method: how the model was trained and is sampled (loss weight, draw,
    buffer, sampler), None if unknown. checkpoint: which weights were scored, `last` or `heldout-best`. cell: its name
    in its grid. regime: `clean`, `mixture`, `noisy-only`, ... evaluation: settings of the scoring (sampler, seed, n),
    empty if unknown. extra: anything else, JSON only; what is read of it has a kind (`record_fields`).

    A dataset that looks like a path keeps its last component only: a record can be moved to another machine.
    Raises DataError for a value that is not allowed.
    """

    source: str
    dataset: str
    n_clean: int
    n_noisy: int
    sigma_n: float | tuple[float, ...] | None
    metric: str
    extractor: str
    value: float
    stderr: float | None
    n_eval: int
    seed: int | None
    config_hash: str
    reference: str = "heldout-clean"
    duration_nimg: int | None = None
    level: float | None = None
    method: Mapping[str, Any] | str | None = None
    checkpoint: str | None = None
    cell: str | None = None
    regime: str | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    wall_s: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise DataError(f"schema {self.schema!r} is not {SCHEMA!r}")
        if self.source not in SOURCES:
            raise DataError(f"source {self.source!r} is not one of {', '.join(SOURCES)}")
        check_fields(self)
        object.__setattr__(self, "evaluation", finite(self.evaluation))  # it is hashed, and JSON has no NaN
        for name in ("value", "stderr", "level"):
            if isinstance(number := getattr(self, name), int):
                object.__setattr__(self, name, float(number))
        object.__setattr__(self, "dataset", name_of_data(self.dataset))
        for name in ("dataset", "metric", "extractor", "reference", "config_hash", "cell", "regime"):
            text = getattr(self, name)
            if isinstance(text, str) and not text.isprintable():
                object.__setattr__(self, name, printable_line(text))
        if self.checkpoint is not None and self.checkpoint not in CHECKPOINTS:
            raise DataError(f"checkpoint {self.checkpoint!r} is not one of {', '.join(CHECKPOINTS)}, or null")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first."""
        d = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in d.items():
            if isinstance(value, Mapping):
                d[name] = dict(value)
            elif isinstance(value, tuple):
                d[name] = list(value)
        return {"schema": d.pop("schema"), **d}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Record:
        """Inverse of `to_dict`; reads `ambient.result/1` too. Raises DataError on a missing, unknown or invalid field,
        or another schema."""
        if not isinstance(d, Mapping):
            raise DataError(f"a record must be a JSON object, not {type(d).__name__}")
        schema = d.get("schema")
        if schema == record_schema_1.SCHEMA:
            d = {**record_schema_1.upgrade(d), "schema": SCHEMA}
        elif schema != SCHEMA:
            raise DataError(f"schema {schema!r} is unknown: this version reads {record_schema_1.SCHEMA} and {SCHEMA}")
        if unknown := sorted(d.keys() - cls.__dataclass_fields__.keys()):
            raise DataError(f"unknown field(s) {', '.join(unknown)}")
        sigma_n = d.get("sigma_n")
        try:
            return cls(**{**d, "sigma_n": tuple(sigma_n) if isinstance(sigma_n, list) else sigma_n})
        except TypeError as error:
            raise DataError(f"not a record: {error}".replace("Record.__init__() ", "")) from None


def name_of_data(dataset: str) -> str:
    """The name of a data set that was given by its path: the last component."""
    parts = [part for part in dataset.replace("\\", "/").split("/") if part]
    return parts[-1] if parts else dataset


def write_records(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Write records as JSON lines, atomically (a reader sees the old file or the new one).

    A path that ends in `.gz` is compressed, without the time in it: same records, same bytes.
    """
    text = "".join(json.dumps(r.to_dict(), sort_keys=False) + "\n" for r in records)
    if Path(path).suffix == ".gz":
        atomic_write_bytes(Path(path), gzip.compress(text.encode(), mtime=0))
    else:
        atomic_write_text(Path(path), text)


def library_versions(*names: str) -> dict[str, str]:
    """Versions of Python, of this distribution and of the installed packages among `names`."""
    found = {"python": platform.python_version()}
    for name in ("ambient-worth", *names):
        if (version := _version(name)) is not None:
            found[name] = version
    return found


@functools.cache
def _version(name: str) -> str | None:
    """Of an installed package; its metadata are parsed once a process, not once a record."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
