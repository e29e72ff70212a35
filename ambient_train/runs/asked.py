"""Which run belongs to what was asked, found from manifests alone: nothing is trained, loaded or hashed for it.

A run is named by its config and the content of its images. Whether it is there can be told faster: its manifest also
keeps a hash of each request that led to it, with a fingerprint of the data's files at that time. Where both agree the
run is the one; where they do not, the data must be read (`resolve`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.records import Record
from ambient_train.data.formats.passed_over import suffix
from ambient_train.data.place import is_there, place
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.layers import TrainSettings
from ambient_train.settings.run_options import Schedule

_DEEPEST = 3


@dataclass(frozen=True)
class Request:
    """A request and the state of its data: what a manifest keeps of them."""

    name: str
    fingerprint: str


def request_of(settings: TrainSettings) -> Request:
    """name: hash of everything asked that decides the weights, the data's spelling included."""
    asked = {"train": settings.train.to_dict(), "amounts": settings.amounts.to_dict()}
    files = fingerprint(settings.train.data)
    noise = settings.train.noise.partition(":")[2]
    if noise and is_there(noise):
        files = content_hash([files, fingerprint(noise)], 16)
    return Request(content_hash(asked, 16), files)


def asked_details(settings: TrainSettings) -> dict[str, Any]:
    """For the manifest of the run that a request leads to."""
    request = request_of(settings)
    return {"asked": {request.name: request.fingerprint}}


def fingerprint(data: str) -> str:
    """Sizes and times of change of a data set's files; the name itself for a built-in set.

    Three levels of folders are looked at, each file by name, size and time; beside one file, what states its labels and
    noise.
    """
    if not is_there(data):
        return data
    asked = place(data)
    files: list[Any] = [[name, size, at] for name, size, at in _files(asked.path, "", _DEEPEST)]
    stem = asked.path.name[: len(asked.path.name) - len(suffix(asked.path.name))]
    beside = (asked.path.with_name(f"{stem}.{what}.npy") for what in ("labels", "sigma", "spectrum"))
    files += [
        f for path in beside if path.is_file() and not asked.path.is_dir() for f in map(list, _files(path, "", 0))
    ]
    if asked.inside or asked.mapped:
        files.append([asked.inside, str(asked.range), *([str(asked.counts)] if asked.counts else [])])
    return content_hash(files, 16)


@dataclass(frozen=True)
class Found:
    """The run of a request, where manifests alone can tell. certain: whether they can (path None: there is none)."""

    path: Path | None
    certain: bool


def find_run(runs: Path, settings: TrainSettings) -> Found:
    """The run below `runs` that this request led to, with the data as they are now.

    Not certain where a run with the same settings is there, of data that may or may not be the same.
    """
    request = request_of(settings)
    alike = False
    for path in sorted(p.parent for p in runs.glob("*/manifest.json")):
        try:
            manifest = RunDirectory(path).manifest()
        except DataError:
            continue
        if (manifest.get("asked") or {}).get(request.name) == request.fingerprint:
            return Found(path, True)
        alike = alike or _may_be(manifest["config"], settings)
    return Found(None, not alike)


def _may_be(stored: Mapping[str, Any], settings: TrainSettings) -> bool:
    """Whether a run of this config could be the one that is asked for, whatever its data are."""
    found = {"data_hash": stored.get("data_hash", "")}
    clean, noisy = stored.get("n_clean", 0), stored.get("n_noisy", 0)
    teacher = stored.get("teacher", "") if settings.train.distill else ""
    asked = replace(settings.train, n_clean=clean, n_noisy=noisy, teacher=teacher)
    if asked.differences({**stored, **found}) not in ([], [f"data_hash: {found['data_hash']!r} -> ''"]):
        return False
    amounts = settings.amounts
    if amounts.n_clean is not None or amounts.n_noisy is not None:
        return (clean, noisy) == (amounts.n_clean or 0, amounts.n_noisy or 0)
    return amounts.corruption is None or abs(noisy - amounts.corruption * (clean + noisy)) <= 1


def stored_scores(path: Path, wanted: EvalConfig) -> dict[int, list[Record]]:
    """Scored points of a run, by image count, that were scored in the way that is asked for."""
    directory = RunDirectory(path)
    stored = directory.result(directory.config())
    out: dict[int, list[Record]] = {}
    for point in stored["points"] if stored is not None else ():
        try:
            made = EvalConfig.from_stored(point["evaluation"])
        except UsageError:
            continue
        if made == (wanted if wanted.extractors else replace(wanted, extractors=made.extractors)):
            out[int(point["nimg"])] = [Record.from_dict(r) for r in point["records"]]
    return out


def is_scored(path: Path, wanted: EvalConfig, schedule: Schedule) -> bool:
    """Whether every point that is asked for is scored, in the way that is asked for."""
    return set(schedule.scored) <= set(stored_scores(path, wanted))


def _files(path: Path, below: str, depth: int) -> Iterator[tuple[str, int, int]]:
    if path.is_file():
        state = path.stat()
        yield below or path.name, state.st_size, state.st_mtime_ns
        return
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        if entry.is_dir() and depth:
            yield from _files(Path(entry.path), f"{below}/{entry.name}", depth - 1)
        else:
            state = entry.stat()
            yield f"{below}/{entry.name}", state.st_size, state.st_mtime_ns
