"""Files whose library may crash, hang or take all memory where they are damaged: read by a process that may be lost.

The process is started when such a file is met, and used again for the next one. For each answer it has CPU_S seconds of
processor time and MEMORY bytes; if it ends instead, the file is refused. Requests and answers are a line of JSON, then
the bytes that it announces.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError, first_line
from ambient_train.data.formats.frames import Frames
from ambient_train.data.formats.noise_arrays import StatedNoise
from ambient_train.data.readers import READERS

CPU_S = 3.0
CPU_S_PER_BYTE = 1e-7
MEMORY = 2 * 2**30
_START = "from ambient_train.data.readers._aside import serve; serve()"
_NOISE = tuple(field.name for field in fields(StatedNoise))
_ERRORS = {kind.__name__: kind for kind in (DataError, UsageError)}


def open_aside(reader: str, file: BinaryIO, where: str, inside: str) -> Frames:
    """`READERS[reader].format.open_here` in another process. Raises what it raises, and DataError where it ends."""
    session = _Session(where)
    asked = {"do": "open", "reader": reader, "where": where, "inside": inside}
    if isinstance(file, io.BytesIO):
        said, data = session.ask(asked, file.getvalue())
    else:
        said, data = session.ask(asked | {"path": os.path.abspath(file.name)})
    shape = (said["shape"][0], said["shape"][1], said["shape"][2])
    columns, start = {}, 0
    for name, dtype, sizes in said["columns"]:
        stop = start + np.dtype(dtype).itemsize * int(np.prod(sizes))
        columns[name] = np.frombuffer(data[start:stop], dtype).reshape(sizes)
        start = stop
    return Frames(
        said["count"],
        shape,
        np.dtype(said["dtype"]),
        session.read,
        session.close,
        StatedNoise(*(columns.get(name) for name in _NOISE)),
        columns.get("labels"),
        tuple(said["notes"]),
    )


@dataclass(frozen=True)
class Entries:
    """A database of encoded images. keys: of its entries, in order; read(k): the value of the k-th; close(): lets it
    go."""

    keys: tuple[bytes, ...]
    read: Callable[[int], bytes]
    close: Callable[[], None]


def entries_aside(reader: str, path: Path, where: str) -> Entries:
    """`READERS[reader].entries` in another process. Raises what it raises, and DataError where it ends."""
    session = _Session(where)
    said, data = session.ask({"do": "entries", "reader": reader, "where": where, "path": os.path.abspath(path)})
    ends = np.cumsum(said["lengths"], dtype=np.int64).tolist()
    keys = tuple(data[start:end] for start, end in zip([0, *ends], ends, strict=False))
    return Entries(keys, lambda k: session.ask({"do": "value", "k": k})[1], session.close)


# ------------------------------------------------------------------------------------------------------- the one side


class _Session:
    """One file in one helper, which is free for another when the file is let go."""

    def __init__(self, where: str):
        self.where = where
        self.helper: _Helper | None = _taken()

    def ask(self, request: Mapping[str, Any], data: bytes = b"") -> tuple[dict[str, Any], bytes]:
        lost = (
            f"{self.where}: damaged: the library for such files ends, hangs or takes more than {MEMORY // 2**30} GiB "
            "when it reads it"
        )
        if self.helper is None:
            raise DataError(lost)
        try:
            said, answer = self.helper.ask(request, data)
        except (OSError, EOFError, ValueError):
            self.helper.end()
            self.helper = None
            raise DataError(lost) from None
        if "error" in said:
            raise _ERRORS.get(said["error"], ValueError)(said["message"])
        return said, answer

    def read(self, k: int) -> np.ndarray:
        said, data = self.ask({"do": "read", "k": k})
        return np.frombuffer(data, np.dtype(said["dtype"])).reshape(said["shape"])

    def close(self) -> None:
        if self.helper is not None:
            with contextlib.suppress(Exception):
                self.ask({"do": "close"})
            helper, self.helper = self.helper, None
            if helper is not None:
                helper.let_go()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be ending
            self.close()


class _Helper:
    """A process that serves one session after the other."""

    free: list[_Helper] = []  # noqa: RUF012  # of this process, see `_taken`
    lock = threading.Lock()

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def ask(self, request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        _send(self.process.stdin, request, data)
        found = _received(self.process.stdout)
        if found is None:
            raise EOFError
        return found

    def let_go(self) -> None:
        with _Helper.lock:
            _Helper.free.append(self)

    def end(self) -> None:
        """End the process, if it is ours and not that of a process that this one is a fork of."""
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):  # what was still to be written
                    assert stream is not None
                    stream.close()


def _taken() -> _Helper:
    """A helper that is free, or a new one."""
    with _Helper.lock:
        while _Helper.free:
            helper = _Helper.free.pop()
            if helper.owner == os.getpid() and helper.process.poll() is None:
                return helper
    return _Helper()


@atexit.register
def _end_all() -> None:
    while _Helper.free:
        _Helper.free.pop().end()


# ----------------------------------------------------------------------------------------------------- the other side


def serve() -> None:
    """What the helper does, until the other side is gone."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides what an interrupt means
    frames: Frames | None = None
    entries: Entries | None = None
    while (found := _received(requests)) is not None:
        request, data = found
        answer: dict[str, Any] = {}
        values: Any = b""
        _limit_time(CPU_S + CPU_S_PER_BYTE * _bytes_at_stake(request, frames))
        try:
            if request["do"] == "read":
                assert frames is not None
                image = np.ascontiguousarray(frames.read(request["k"]))
                answer, values = {"dtype": image.dtype.str, "shape": image.shape}, image.data.cast("B")
            elif request["do"] == "value":
                assert entries is not None
                values = entries.read(request["k"])
            else:
                for held in (frames, entries):
                    if held is not None:
                        held.close()
                frames = entries = None
                _limit_memory(request["do"] != "entries")
                if request["do"] == "entries":
                    opened: Any = READERS[request["reader"]].entries
                    entries = opened(Path(request["path"]), request["where"])
                    answer, values = {"lengths": [len(key) for key in entries.keys]}, b"".join(entries.keys)
                if request["do"] == "open":
                    form: Any = READERS[request["reader"]].format
                    frames = form.open_here(_stream(request, data), request["where"], request["inside"])
                    answer, values = _described(frames)
        except MemoryError:
            said = f"{request.get('where', 'the file')}: damaged: reading it asks for more than {MEMORY // 2**30} GiB"
            answer = {"error": "DataError", "message": said}
        except Exception as error:
            message = str(error) if type(error) in _ERRORS.values() else first_line(error, 100)
            answer = {"error": type(error).__name__, "message": message}
        _limit_time(0)
        _send(answers, answer, values)


def _stream(request: Mapping[str, Any], data: bytes) -> BinaryIO:
    return open(request["path"], "rb") if "path" in request else io.BytesIO(data)


def _described(frames: Frames) -> tuple[dict[str, Any], bytes]:
    every = {name: getattr(frames.noise, name) for name in _NOISE} | {"labels": frames.labels}
    columns = {name: column for name, column in every.items() if column is not None}
    what = {"count": frames.count, "shape": frames.shape, "dtype": frames.dtype.str, "notes": frames.notes}
    stated = [(name, column.dtype.str, column.shape) for name, column in columns.items()]
    return {**what, "columns": stated}, b"".join(column.tobytes() for column in columns.values())


def _bytes_at_stake(request: Mapping[str, Any], frames: Frames | None) -> float:
    """Bytes that an answer may have to look at: of an image, or of a whole database."""
    if request["do"] == "entries":
        path = Path(request["path"])
        return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file())
    return float(np.dtype(frames.dtype).itemsize * np.prod(frames.shape)) if frames else 0.0


def _limit_memory(limited: bool) -> None:
    """Addresses for MEMORY bytes more than now, or as many as the system gives: a database is mapped whole."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as file:
            held = int(file.read().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY if limited else most, most))


def _limit_time(seconds: float) -> None:
    """So many seconds of processor time from now; the system ends the process after them. 0: any number."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, float(seconds))


def _send(stream: Any, what: Mapping[str, Any], data: Any) -> None:
    stream.write(json.dumps({**what, "bytes": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


def _received(stream: Any) -> tuple[dict[str, Any], bytes] | None:
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    what = json.loads(line)
    data = stream.read(what.pop("bytes"))
    return what, data
