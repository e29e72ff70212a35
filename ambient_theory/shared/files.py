"""Files that are whole or absent: atomic writes, sealed JSON, locks, and the hash of a value.

A sealed file carries the SHA-256 of its canonical text, so that damage and edits are noticed. A lock is the operating
system's and falls with the process that held it. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import read_text
from ambient_theory.shared.parsing import parse_json


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def finite(value: Any) -> Any:
    """JSON without NaN or infinity: those become null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def content_hash(value: Any, length: int = 8) -> str:
    """First `length` hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: a reader sees the old file or the new one.

    What killed writers of the same `path` left behind is removed; a living one holds a lock on its file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove_if_dead(left)
    temporary, stream = _temporary(path)
    with _in_place(temporary, stream, path) as file:
        file.write(data)


def _temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """A new temporary file beside `path`, locked by this process."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        stream = open(temporary, "xb")  # noqa: SIM115
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: nobody will take the file for a dead one's
            return temporary, stream
        if os.fstat(stream.fileno()).st_nlink:  # not removed by another process before it was locked
            return temporary, stream
        stream.close()


def _remove_if_dead(file: Path) -> None:
    """Remove a temporary file unless a process holds it."""
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()


def leftovers(directory: Path) -> list[Path]:
    """Temporary files in a directory that a killed process left behind, or that another one is writing just now."""
    return [p for p in directory.glob(".*.tmp") if p.is_file()] if directory.is_dir() else []


def is_free(directory: Path) -> bool:
    """Whether a directory is not there, or holds nothing but a lock and leftovers."""
    passing = {p.name for p in leftovers(directory)} | {"lock"}
    return not directory.is_dir() or all(p.name in passing for p in directory.iterdir())


def remove_leftovers(directory: Path) -> None:
    """Remove the leftovers of a directory, for its sole user."""
    for file in leftovers(directory):
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """`atomic_write_bytes` for what is too large to hold: a stream whose file takes the place of `path` at the end.

    The temporary name is fixed, so that what a killed process left behind is written over by the next attempt; there
    must be one writer at a time. An exception removes it and leaves `path` as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _in_place(temporary, open(temporary, "wb"), path) as file:
        yield file


@contextlib.contextmanager
def flushed(file: IO[Any]) -> Iterator[IO[Any]]:
    """An open file that is on disk when the block is left without an exception, and closed in any case.

    For what must not move to another name: a journal, or a file in a directory that is itself renamed when it is whole.
    """
    with file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _in_place(temporary: Path, stream: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    try:
        with flushed(stream) as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_directory(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of UTF-8 text."""
    atomic_write_bytes(path, text.encode("utf-8"))


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` durable (a no-op where directories cannot be opened)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError if the file is missing or cannot be read."""
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def write_sealed(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a JSON object with the SHA-256 of its canonical text beside it, atomically."""
    body = json.loads(canonical_json(payload))
    atomic_write_text(path, json.dumps({**body, "sha256": content_hash(body, 64)}, indent=1) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote. Raises DataError if the file is missing, damaged or was edited."""
    body = read_json(path)
    if not isinstance(body, dict) or "sha256" not in body:
        raise DataError(f"{path}: not a sealed JSON object")
    seal = body.pop("sha256")
    try:
        expected = content_hash(body, 64)
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error})") from None
    if seal != expected:
        raise DataError(f"{path}: damaged (checksum does not match)")
    return body


@contextlib.contextmanager
def exclusive_lock(path: Path, *, blocking: bool = False) -> Iterator[bool]:
    """Hold an operating-system lock on `path`; yields False if another process holds it and `blocking` is False.

    The kernel drops the lock with its holder, so a killed process leaves none behind. A link is not followed: raises
    DataError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataError(f"{path} is a link, and a lock is never one: remove it") from None
        raise
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield True
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock `path`; nothing is written, and no lock is made."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # none is there, or none of ours
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
