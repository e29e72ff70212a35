"""Read damaged files in another process, which may crash, hang or ask for too much, and say what became of each.

A case ends in one of GOOD: READ, SKIPPED (a part was left out, counted and named) or REFUSED (one sentence that names
the file). Anything else is a fault: a crash, another exception, a sentence without the file or of more than LONGEST
characters, more processor time (or ten times as long on the clock) or memory than the reader may take, a word on the
terminal, a file outside DEST, a file that was changed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.plain_text import printable_line

READ, SKIPPED, REFUSED = "read", "skipped", "refused"
GOOD = (READ, SKIPPED, REFUSED)
LONGEST = 5000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")

Way = Callable[[str, Path], str]
"""How a file is read: from its spec (a path, and for some what follows it) and DEST; READ or SKIPPED, or it raises."""


class Fault(Exception):
    """What must not happen: (kind, what was seen)."""


@dataclass(frozen=True)
class Limits:
    """Seconds of processor time and bytes of memory that one case may take."""

    time_s: float = 5
    memory: int = 2**30


LIMITS = Limits()


@dataclass(frozen=True)
class Case:
    """number: for its folder. spec: the source, below that folder. files: all of it, damaged. way: how it is read."""

    number: int
    spec: str
    files: Mapping[str, bytes]
    way: Way
    limits: Limits = LIMITS


def check_sentence(text: str, *named: str) -> None:
    """Raise Fault unless the text is one printable line, not too long, that has one of `named` in it."""
    if text != printable_line(text) or not text:
        raise Fault("no sentence", repr(text)[:200])
    if len(text) > LONGEST:
        raise Fault("a long sentence", f"{len(text)} characters: {text[:200]}")
    if named and not any(name in text for name in named):
        raise Fault("a sentence without the file", text[:200])


def _no_memory(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, says that memory was refused."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def outcome(folder: Path, spec: str, files: Iterable[str], way: Way) -> tuple[str, str]:
    """(one of GOOD or a kind of fault, what was said) of the source `spec` in `folder`/in, which is made of `files`;
    DEST is in `folder`/out."""
    source = str(folder / "in" / spec)
    named = [str(folder / "in" / name) for name in (spec.partition(":")[0], *files)]
    try:
        return way(source, folder / "out" / "made.npz"), ""
    except (DataError, UsageError) as error:
        if _no_memory(error):
            return "memory", str(error)[:200]
        try:
            check_sentence(str(error), *named)
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


def _confine(memory: int, place: list[Path], changed: list[str]) -> None:
    """Limit this process to `memory` more bytes; changes of files outside `place[0]`/out are noted in `changed`."""
    for kind in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(kind, signal.SIG_DFL)  # the system ends it, wherever it hangs
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True  # of a module that is imported here first

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
    _confine(cases[0].limits.memory, place, changed)
    for k, case in enumerate(cases):
        changed.clear()
        place[0] = folders[k]
        os.chdir(folders[k] / "cwd")
        os.dup2(words[k], 1)
        os.dup2(words[k], 2)
        signal.setitimer(signal.ITIMER_REAL, 10 * case.limits.time_s)
        signal.setitimer(signal.ITIMER_PROF, case.limits.time_s)
        started = time.process_time()
        found = outcome(folders[k], case.spec, case.files, case.way)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if changed and found[0] in GOOD:
            found = ("outside DEST", changed[0])
        os.write(reports[k], json.dumps([*found, time.process_time() - started]).encode())


def run_cases(root: Path, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Outcome, message, processor seconds and peak bytes of each case. One process reads them, the next goes on where
    it died. The memory is that which the first may take."""
    folders = [root / f"case-{case.number}" for case in cases]
    for case, folder in zip(cases, folders, strict=True):
        write_files(folder, case.files)
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


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """The folders of a case, with the files to read in `folder`/in."""
    for name in ("in", "out", "cwd"):
        (folder / name).mkdir(parents=True)
    for name, content in files.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
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
