"""Bounds on what a file may make us read: a small file must not expand without end, a header must not be believed."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from ambient_theory.shared.errors import DataError

MAX_ARRAY_BYTES = 64 * 2**30
MAX_MEMBER_BYTES = 256 * 2**20
MAX_TEXT_BYTES = 64 * 2**20
MAX_PIXELS = 128_000_000
BOMB_RATIO = 200
BOMB_BYTES = 64 * 2**20


def check_array_size(shape: Sequence[int], itemsize: int, where: str) -> int:
    """Bytes of an array of that shape. Raises DataError where it is negative, empty, or beyond MAX_ARRAY_BYTES."""
    size = itemsize
    for n in shape:
        if n < 0:
            raise DataError(f"{where}: negative size in shape {tuple(shape)}")
        size *= n
    if size == 0:
        raise DataError(f"{where}: empty array of shape {tuple(shape)}")
    if size > MAX_ARRAY_BYTES:
        raise DataError(f"{where}: an array of {size / 2**30:,.1f} GiB; the limit is {MAX_ARRAY_BYTES // 2**30} GiB")
    return size


def check_expansion(compressed: int, expanded: int, where: str) -> None:
    """Raises DataError for content that expands both far and much: what a decompression bomb does."""
    if expanded > BOMB_BYTES and expanded > BOMB_RATIO * max(compressed, 1):
        raise DataError(
            f"{where}: {compressed} bytes expand to {expanded} or more, over {BOMB_RATIO} times (a decompression bomb?)"
        )


def read_at_most(stream: IO[bytes], size: int, step: int = 2**24) -> bytes:
    """Up to `size` bytes, block by block: a size that a header claims asks for no more memory than there is content."""
    found = bytearray()
    while len(found) < size and (block := stream.read(min(step, size - len(found)))):
        found += block
    return bytes(found)


class BoundedReader(io.RawIOBase):
    """A decompressing stream that stops with DataError once it has expanded too far."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, compressed: int, where: str, limit: int = MAX_ARRAY_BYTES):
        self._stream, self._compressed, self._where, self._limit = stream, compressed, where, limit
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._stream.read(len(buffer))
        self._read += len(data)
        check_expansion(self._compressed, self._read, self._where)
        if self._read > self._limit:
            raise DataError(f"{self._where}: expands to more than {self._limit / 2**30:,.1f} GiB")
        buffer[: len(data)] = data
        return len(data)


def unpacking(file: BinaryIO, where: str | Path) -> BinaryIO:
    """What is packed by gzip in an open file, as it is read. Reading raises DataError for a bomb."""
    size = file.seek(0, 2)
    file.seek(0)
    return io.BufferedReader(BoundedReader(gzip.GzipFile(fileobj=file), size, str(where)), 2**18)


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """The UTF-8 text of a small file. Raises DataError for one that is missing, not readable or too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
        if len(data) <= limit:
            return data.decode()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    raise DataError(f"{path}: more than {limit / 2**20:,.0f} MiB of text, too much for such a file")


def unpacked(file: BinaryIO, where: str) -> tuple[BinaryIO, int]:
    """An open file, or what is packed in it by gzip, at its beginning; and its size. Raises DataError for a bomb."""
    magic = file.read(2)
    size = file.seek(0, 2)
    file.seek(0)
    if magic != b"\x1f\x8b":
        return file, size
    data = unpacking(file, where).read()
    return io.BytesIO(data), len(data)


@contextlib.contextmanager
def open_bounded(path: Path, limit: int = MAX_ARRAY_BYTES) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file for reading; every way in which it is damaged or missing becomes a DataError."""
    try:
        with open(path, "rb") as raw:
            magic = raw.read(2)
            raw.seek(0)
            if magic == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield io.BufferedReader(BoundedReader(stream, path.stat().st_size, str(path), limit), 2**18)
            else:
                yield raw
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or truncated ({error})") from None
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
