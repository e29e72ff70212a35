"""Damage small files of every kind that the readers of numbers know, read them, and count what becomes of each.

Case k of a seed is always the same damage to the same sample. It is read in another process, by `open_source` and
`read` of every image, or, one in four, by `prepare`:

read                 it is still a set of images: finite, of one shape
skipped              `prepare` left images out, and counted and named them
refused              one sentence that names the file (DataError, UsageError)

Anything else is a fault: a crash, another exception, a sentence without the file, more than TIME_S seconds of processor
time (or ten times as long on the clock) or MEMORY bytes, a word on the terminal, a file outside DEST.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.metadata
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutate
from samples import Sample, samples

import ambient_train.data
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.plain_text import printable_line
from ambient_train.data.prepare.prepare import PrepareConfig, prepare
from ambient_train.data.readers import open_source

TIME_S = 10
MEMORY = 2 * 2**30
READ, PREPARED, SKIPPED, REFUSED = "read", "prepared", "skipped", "refused"
GOOD = (READ, SKIPPED, REFUSED)
_LIBRARIES = ("astropy", "h5py", "nibabel", "numpy", "Pillow", "tifffile")
_SHARE_PREPARED = 0.25
_TOGETHER = 126
_CHUNK = 64
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


class Fault(Exception):
    """What must not happen: (kind, what was seen)."""


# ----------------------------------------------------------------------------------------------------------- one file


def read_all(spec: str) -> str:
    """READ, or Fault. Raises whatever reading raises."""
    source = open_source(spec)
    if source.question:
        raise DataError(f"{spec}: {source.question}")
    for note in source.notes:
        _check_sentence(note, "")
    shape: tuple[int, ...] | None = None
    for start in range(0, source.count, _CHUNK):
        images = source.read(np.arange(start, min(start + _CHUNK, source.count)))
        if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or not np.isfinite(images).all():
            raise Fault("no images", f"{images.dtype} {images.shape}")
        if images.shape[1:] != (shape or images.shape[1:]):
            raise Fault("no images", f"{images.shape[1:]} after {shape}")
        shape = images.shape[1:]
    for column in (source.labels, source.sigma_n, source.heldout, source.group):
        if column is not None and column.shape != (source.count,):
            raise Fault("no images", f"a column of shape {column.shape} for {source.count} images")
    return READ


def prepare_all(spec: str, dest: Path, skip_bad: bool) -> str:
    """READ or SKIPPED, or Fault. Raises whatever `prepare` raises."""
    result = prepare(PrepareConfig(source=spec, dest=dest, skip_bad=skip_bad))
    for name, reason in result.skipped:
        _check_sentence(f"{name}: {reason}", "")
    return SKIPPED if result.skipped else READ


def _check_sentence(text: str, named: str) -> None:
    if text != printable_line(text) or not text:
        raise Fault("no sentence", repr(text)[:200])
    if named not in text:
        raise Fault("a sentence without the file", text[:200])


def _no_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, says that memory was refused."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def outcome(folder: Path, spec: str, way: str) -> tuple[str, str]:
    """(one of GOOD or a kind of fault, what was said) of the source `spec` in `folder`/in; DEST is in `folder`/out."""
    source = str(folder / "in" / spec)
    named = str(folder / "in" / spec.partition(":")[0])
    try:
        if way == READ:
            return read_all(source), ""
        return prepare_all(source, folder / "out" / "made.npz", way == SKIPPED), ""
    except (DataError, UsageError) as error:
        if _no_memory(error):
            return "memory", str(error)[:200]
        try:
            _check_sentence(str(error), named)
        except Fault as fault:
            return fault.args[0], fault.args[1]
        return REFUSED, str(error).replace(str(folder / "in"), "")
    except Fault as fault:
        return fault.args[0], fault.args[1]
    except MemoryError as error:
        return "memory", str(error)[:200]
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "unexpected", f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"


# ---------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Case:
    """sample: by name. spec: the source. damaged: the file of it that is `data` now. how: what was done to it. way: how
    it is read, one of READ, PREPARED and SKIPPED."""

    number: int
    sample: str
    spec: str
    damaged: str
    data: bytes
    how: str
    way: str


def _confine(place: list[Path], changed: list[str]) -> None:
    """Limit this process to MEMORY; changes of files outside `place[0]`/out are noted in `changed`."""
    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, signal.SIG_DFL)  # the system ends it, wherever it hangs
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else ""
            if path not in ("", os.devnull) and not os.path.abspath(path).startswith(f"{place[0]}/out"):
                changed.append(f"{event} {path}")

    sys.addaudithook(hook)


def _child(cases: Sequence[Case], folders: Sequence[Path]) -> None:
    """What a process does: of each case the outcome as JSON in `folder`/outcome, its words in `folder`/words."""
    reports = [os.open(folder / "outcome", os.O_CREAT | os.O_WRONLY, 0o600) for folder in folders]
    words = [os.open(folder / "words", os.O_CREAT | os.O_WRONLY, 0o600) for folder in folders]
    place, changed = [folders[0]], list[str]()
    _confine(place, changed)
    for k, case in enumerate(cases):
        changed.clear()
        place[0] = folders[k]
        os.chdir(folders[k] / "cwd")
        os.dup2(words[k], 1)
        os.dup2(words[k], 2)
        signal.alarm(10 * TIME_S)
        signal.setitimer(signal.ITIMER_PROF, TIME_S)
        started = time.process_time()
        found = outcome(folders[k], case.spec, case.way)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if changed and found[0] in GOOD:
            found = ("outside DEST", changed[0])
        os.write(reports[k], json.dumps([*found, time.process_time() - started]).encode())


def run_cases(root: Path, cases: Sequence[Case], table: Mapping[str, Sample]) -> list[dict[str, Any]]:
    """Outcome, message, processor seconds and peak bytes of each case. One process reads them, the next goes on where
    it died."""
    folders = [root / f"case-{case.number}" for case in cases]
    for case, folder in zip(cases, folders, strict=True):
        _write(folder, {**table[case.sample].files, case.damaged: case.data})
    before = [_listing(folder) for folder in folders]
    found: list[dict[str, Any]] = []
    while (done := len(found)) < len(cases):
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                _child(cases[done:], folders[done:])
                status = 0
            finally:
                os._exit(status)
        _, status, usage = os.wait4(pid, 0)
        memory = {"bytes": usage.ru_maxrss * 1024}
        for folder in folders[done:]:
            report = (folder / "outcome").read_text() if (folder / "outcome").exists() else ""
            if not report:
                break
            found.append(dict(zip(("outcome", "message", "seconds"), json.loads(report), strict=True)) | memory)
        if len(found) < len(cases):
            code = os.waitstatus_to_exitcode(status)
            kind = "slow" if code in (-signal.SIGALRM, -signal.SIGPROF) else "crash"
            found.append({"outcome": kind, "message": f"status {code}", "seconds": 0.0} | memory)
    for one, folder, listing in zip(found, folders, before, strict=True):
        if one["outcome"] in GOOD and (seen := _seen(folder, listing)):
            one["outcome"], one["message"] = seen
    return found


def _seen(folder: Path, before: set[tuple[str, int, int]]) -> tuple[str, str] | None:
    """A fault that the process of a case need not notice: words on the terminal, files where none may be."""
    words = (folder / "words").read_text(errors="replace")
    if words:
        return "words on the terminal", words[:300]
    left = {path.name for path in (folder / "out").iterdir()} - {"made.npz", "made.npz.partial"}
    other = {str(item) for item in _listing(folder) ^ before} | left
    return ("outside DEST", str(sorted(other))[:300]) if other else None


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """The folders of a case, with the files to read in `folder`/in."""
    for name in ("in", "out", "cwd"):
        (folder / name).mkdir(parents=True)
    for name, content in files.items():
        path = folder / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    """What lies beside DEST, with sizes and times of change."""
    found = set()
    for name in ("in", "cwd"):
        for place, folders, files in os.walk(folder / name):
            for entry in (*folders, *files):
                known = os.lstat(os.path.join(place, entry))
                found.add((os.path.join(place, entry), known.st_size, known.st_mtime_ns))
    return found


# ----------------------------------------------------------------------------------------------------------- campaign


def draw(seed: int, k: int, table: Mapping[str, Sample]) -> Case:
    """Case k of a seed."""
    generator = np.random.default_rng([seed, k])
    name = list(table)[k % len(table)]
    sample = table[name]
    damaged = sample.damage[generator.integers(len(sample.damage))]
    data, how = mutate(sample.files[damaged], damaged, generator)
    way = READ if generator.random() > _SHARE_PREPARED else (PREPARED, SKIPPED)[generator.integers(2)]
    spec = sample.spec
    if ":" not in spec and generator.random() < 0.15:
        spec += (":range=0..4095", ":range=1%..99%", ":/images", ":/SCI")[generator.integers(4)]
    return Case(k, name, spec, damaged, data, how, way)


def identity(seed: int) -> dict[str, Any]:
    """What a campaign is of: its seed, the code of the readers and of the damage, the versions of the libraries."""
    digest = hashlib.sha256()
    for root in (Path(ambient_train.data.__file__).parent, Path(__file__).parent):
        for path in sorted(root.rglob("*.py")):
            digest.update(path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"seed": seed, "code": digest.hexdigest()[:16], "versions": versions}


def torture(count: int, seed: int, out: Path | None, say: Callable[[str], object]) -> dict[str, Any]:
    """The result of `count` cases, continued from `out` where that is of the same campaign, and saved to it."""
    table, known = samples(), identity(seed)
    result = {**known, "files": 0, "slowest_s": 0.0, "most_memory_mb": 0, "counts": {}, "faults": []}
    if out is not None and out.is_file():
        before = json.loads(out.read_text())
        if {key: before.get(key) for key in known} == known:
            result = before
    counts = {reader: collections.Counter(so_far) for reader, so_far in result["counts"].items()}
    with tempfile.TemporaryDirectory(prefix="torture-files-") as root:
        read_intact(Path(root), table)
    while result["files"] < count:
        first = result["files"]
        cases = [draw(seed, k, table) for k in range(first, min(count, first - first % _TOGETHER + _TOGETHER))]
        with tempfile.TemporaryDirectory(prefix="torture-files-") as root:
            found = run_cases(Path(root), cases, table)
        for case, one in zip(cases, found, strict=True):
            counts.setdefault(table[case.sample].reader, collections.Counter())[one["outcome"]] += 1
            result["slowest_s"] = round(max(result["slowest_s"], one["seconds"]), 2)
            result["most_memory_mb"] = max(result["most_memory_mb"], one["bytes"] // 2**20)
            if one["outcome"] not in GOOD:
                fault = {"case": case.number, "sample": case.sample, "way": case.way, "damage": case.how}
                result["faults"].append(fault | {key: one[key] for key in ("outcome", "message")})
                say(f"case {case.number} of seed {seed}, {case.sample}: {one['outcome']}: {one['message']}")
        result["files"] = first + len(cases)
        result["counts"] = {reader: dict(sorted(counts[reader].items())) for reader in sorted(counts)}
        if out is not None:
            save(out, result)
    return result


def one_case(seed: int, k: int) -> dict[str, Any]:
    """What became of one case, in a folder that stays."""
    table, root = samples(), Path(tempfile.mkdtemp(prefix="torture-files-"))
    case = draw(seed, k, table)
    found = run_cases(root, [case], table)[0]
    shown = {key: getattr(case, key) for key in ("sample", "spec", "damaged", "how", "way")}
    return {**shown, **found, "folder": str(root)}


def read_intact(root: Path, table: Mapping[str, Sample]) -> None:
    """Read every sample as it is, in this process: what they need is imported once, and each is known to be good."""
    sys.dont_write_bytecode = True
    for number, sample in enumerate(table.values()):
        folder = root / f"intact-{number}"
        _write(folder, sample.files)
        for way in (READ, PREPARED):
            found = outcome(folder, sample.spec, way)
            if found[0] != (REFUSED if sample.refused else READ):
                raise AssertionError(f"the intact {sample.spec}: {found[0]}: {found[1]}")


def save(out: Path, result: Mapping[str, Any]) -> None:
    """Write the result in one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(out)
