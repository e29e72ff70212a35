"""NumPy files: .npy and .npz, read without pickles and only after their headers have been checked."""

from __future__ import annotations

import contextlib
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ambient_theory.shared.errors import DataError, first_line
from ambient_theory.shared.limits import check_array_size, check_expansion


def _read_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that is nearly Python
            if version == (1, 0):
                return np.lib.format.read_array_header_1_0(stream)
            if version == (2, 0):
                return np.lib.format.read_array_header_2_0(stream)
        raise DataError(f"{where}: .npy version {version} is not supported (1.0 and 2.0 are)")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: not a readable .npy file ({first_line(error)})") from None


def read_npy(stream: IO[bytes], where: str, available: int, text: bool = False) -> np.ndarray:
    """Array of a .npy stream of `available` bytes. No objects, no size beyond what is there: else DataError.

    text: arrays of text (of a fixed width, `<U5` or `|S5`) are read, too.
    """
    shape, fortran, dtype = _read_header(stream, where)
    if dtype.hasobject or dtype.kind not in "uifcb" + "US" * text:
        raise DataError(f"{where}: values of type {dtype} are not numbers")
    if not shape:
        shape = (1,)
    size = check_array_size(shape, dtype.itemsize, where)
    if size > available:
        raise DataError(f"{where}: truncated, {size} bytes announced in a file of {available}")
    data = stream.read(size)
    if len(data) < size:
        raise DataError(f"{where}: truncated, {len(data)} of {size} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def load_npy(path: Path) -> np.ndarray:
    """`read_npy` of a file."""
    try:
        with open(path, "rb") as stream:
            return read_npy(stream, str(path), path.stat().st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


@contextlib.contextmanager
def _open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from None
    except (RuntimeError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from None


def load_npz(path: Path, only: Collection[str] | None = None, text: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name: all of them, or those among `only`; those among `text` may hold text."""
    arrays = {}
    with _open_npz(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if only is not None and name not in only:
                continue
            if name == info.filename:
                raise DataError(f"{path}: {info.filename!r} is not a .npy array")
            where = f"{path}:{info.filename}"
            check_expansion(info.compress_size, info.file_size, where)
            with archive.open(info) as stream:
                arrays[name] = read_npy(stream, where, info.file_size, text=name in text)
    return arrays


@dataclass(frozen=True)
class Held:
    """An array of an .npz from its header: `float64 [60, 16, 16]`, and its shape; what is none has none."""

    what: str
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.what


def list_npz(path: Path) -> dict[str, Held]:
    """What an .npz file holds, by name; nothing but headers is read."""
    found = {}
    with _open_npz(path) as archive:
        for info in archive.infolist():
            name, held = info.filename.removesuffix(".npy"), Held("no array")
            if name != info.filename:
                try:
                    with archive.open(info) as stream:
                        shape, _, dtype = _read_header(stream, name)
                    held = Held(f"{dtype} {list(shape)}", shape)
                except Exception as error:  # of an array that nobody asked for, damage is no reason to stop
                    held = Held(f"unreadable: {first_line(error, 60)}")
            found[name] = held
    return found
