"""Damage small files of every kind that a user gives, read them, and count what becomes of each.

Case k of a seed and a reader is always the same damage to the same sample. It is read in another process, in one of the
reader's ways; see `confined` for what may become of it.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from confined import GOOD, READ, REFUSED, Case, outcome, run_cases, write_files
from mutations import mutate
from readers import READERS, WAYS, Reader
from samples import Sample
from seals import resealed

_TOGETHER = 128
_MEMORY = Path("/dev/shm")
_ROOT = _MEMORY if os.access(_MEMORY, os.W_OK) else None
"""Where the small files lie: in memory, where there is such a place."""
_SHARE_RESEALED = 0.75


@dataclass(frozen=True)
class Drawn:
    """A case, and what it is: names of the sample and the way, the file that is damaged, what was done to it."""

    case: Case
    sample: str
    way: str
    damaged: str
    how: str


def draw(seed: int, name: str, k: int, table: Mapping[str, Sample]) -> Drawn:
    """Case k of a seed and a reader."""
    reader = READERS[name]
    generator = np.random.default_rng([seed, zlib.crc32(name.encode()), k])
    chosen = list(table)[k % len(table)]
    sample = table[chosen]
    damaged = sample.damage[generator.integers(len(sample.damage))]
    data, how = mutate(sample.files[damaged], damaged, generator)
    files = {**sample.files, damaged: data}
    if sample.sealed and generator.random() < _SHARE_RESEALED:
        files, how = resealed(files, damaged), f"{how}, sealed"
    ways = sample.ways or reader.ways
    way = ways[generator.integers(len(ways))]
    spec = sample.spec
    if way in ("read", "prepared", "skipped") and ":" not in spec and generator.random() < 0.15:
        spec += (":range=0..4095", ":range=1%..99%", ":/images", ":/SCI")[generator.integers(4)]
    return Drawn(Case(k, spec, files, WAYS[way], reader.limits), chosen, way, damaged, how)


def shares(count: int) -> dict[str, int]:
    """Inputs of each reader of a campaign of `count`, in proportion to `Reader.inputs`."""
    whole = sum(reader.inputs for reader in READERS.values())
    ends = np.cumsum([0] + [reader.inputs for reader in READERS.values()]) * count // whole
    return dict(zip(READERS, np.diff(ends).tolist(), strict=True))


def torture(
    count: int, seed: int, out: Path | None, say: Callable[[str], object], only: str | None = None
) -> dict[str, Any]:
    """The result of `count` cases, or of `count` of one reader, saved to `out` and continued from there.

    What `out` has of a reader counts where it is of the same seed, code and libraries; else the reader begins anew.
    """
    before = json.loads(out.read_text()) if out is not None and out.is_file() else {}
    known = before.get("readers", {}) if before.get("seed") == seed else {}
    asked = shares(count) if only is None else {only: count}
    done: dict[str, dict[str, Any]] = {}
    for name, reader in READERS.items():
        if name not in asked and name not in known:
            continue
        table = reader.samples()
        identity = reader.identity(table)
        stored = known.get(name, {})
        same = {key: stored.get(key) for key in identity} == identity
        fresh = {**identity, "inputs": 0, "slowest_s": 0.0, "most_memory_mb": 0, "counts": {}, "faults": []}
        done[name] = stored if same else fresh
    result: dict[str, Any] = {"seed": seed}
    for name, wanted in asked.items():
        one, table = done[name], READERS[name].samples()
        if one["inputs"] < wanted:
            read_intact(READERS[name], table)
        while one["inputs"] < wanted:
            _some(seed, name, min(wanted - one["inputs"], _TOGETHER), one, table, say)
            result = {"seed": seed, **_totals(done), "readers": done}
            if out is not None:
                save(out, result)
    return {"seed": seed, **_totals(done), "readers": done}


def _some(seed: int, name: str, number: int, one: dict[str, Any], table: Mapping[str, Sample], say: Any) -> None:
    """Read the next cases of a reader and add what became of them to `one`."""
    drawn = [draw(seed, name, one["inputs"] + k, table) for k in range(number)]
    with tempfile.TemporaryDirectory(prefix="torture-files-", dir=_ROOT) as root:
        found = run_cases(Path(root), [d.case for d in drawn])
    counts = collections.Counter(one["counts"])
    for d, seen in zip(drawn, found, strict=True):
        counts[seen["outcome"]] += 1
        one["slowest_s"] = round(max(one["slowest_s"], seen["seconds"]), 2)
        one["most_memory_mb"] = max(one["most_memory_mb"], seen["bytes"] // 2**20)
        if seen["outcome"] not in GOOD:
            fault = {"case": d.case.number, "sample": d.sample, "way": d.way, "file": d.damaged, "damage": d.how}
            one["faults"].append(fault | {key: seen[key] for key in ("outcome", "message")})
            say(f"{name}, case {d.case.number} of seed {seed}: {seen['outcome']}: {seen['message']}")
    one["inputs"] += number
    one["counts"] = dict(sorted(counts.items()))


def _totals(done: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Over all readers: how many inputs, how many of them ended in what, the slowest, the most memory."""
    counts: collections.Counter[str] = collections.Counter()
    for one in done.values():
        counts.update(one["counts"])
    return {
        "inputs": sum(one["inputs"] for one in done.values()),
        "slowest_s": max((one["slowest_s"] for one in done.values()), default=0.0),
        "most_memory_mb": max((one["most_memory_mb"] for one in done.values()), default=0),
        "counts": dict(sorted(counts.items())),
        "faults": sum(len(one["faults"]) for one in done.values()),
    }


def one_case(seed: int, name: str, k: int) -> dict[str, Any]:
    """What became of one case, in a folder that stays."""
    table, root = READERS[name].samples(), Path(tempfile.mkdtemp(prefix="torture-files-", dir=_ROOT))
    drawn = draw(seed, name, k, table)
    read_intact(READERS[name], table)
    found = run_cases(root, [drawn.case])[0]
    shown = {key: value for key, value in dataclasses.asdict(drawn).items() if key != "case"}
    return {**shown, "spec": drawn.case.spec, **found, "folder": str(root)}


def read_intact(reader: Reader, table: Mapping[str, Sample]) -> None:
    """Read every sample as it is, in this process: what they need is imported once, and each is known to be good."""
    with tempfile.TemporaryDirectory(prefix="torture-files-", dir=_ROOT) as root:
        for number, sample in enumerate(table.values()):
            folder = Path(root) / f"intact-{number}"
            write_files(folder, sample.files)
            for way in dict.fromkeys(sample.ways or reader.ways):
                found = outcome(folder, sample.spec, sample.files, WAYS[way])
                shutil.rmtree(folder / "out")
                (folder / "out").mkdir()
                if found[0] != (REFUSED if sample.refused else READ):
                    raise AssertionError(f"the intact {sample.spec}, {way}: {found[0]}: {found[1]}")


def save(out: Path, result: Mapping[str, Any]) -> None:
    """Write the result in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(out)
