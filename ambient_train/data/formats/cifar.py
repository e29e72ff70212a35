"""CIFAR-10 tarballs (Krizhevsky 2009), python and binary version, without trusting their pickles.

The python version holds pickled dictionaries of arrays. `safe_pickle` reads them as data: no class or function of any
module is ever looked up.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import MAX_MEMBER_BYTES, check_array_size, open_bounded
from ambient_train.safe_pickle import Budget, Call, read_pickle

_PYTHON = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)$")
_BINARY = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)\.bin$")
_ALLOWED = frozenset(
    (
        *("numpy.dtype", "numpy.ndarray", "_codecs.encode"),
        *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    )
)
_MAX_DEPTH = 8
_MAX_TOTAL = 2 * 2**30
_MOST_ENDS = 100
_PIXELS = 3 * 32 * 32
_KINDS: dict[str, np.dtype[Any]] = {"u1": np.dtype(np.uint8), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}


def load_plain_pickle(data: bytes, where: str) -> Any:
    """Content of a pickle of containers, text, bytes, numbers and arrays of uint8, int32 or int64; else DataError."""
    try:
        content = read_pickle(io.BytesIO(data), lambda module, name: f"{module}.{name}" in _ALLOWED)
        return _value(content, Budget(len(data)), 0)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _value(value: Any, budget: Budget, depth: int) -> Any:
    """The value with arrays made of their descriptions. Raises DataError for what is neither plain nor an array."""
    budget.spend()
    if depth > _MAX_DEPTH:
        raise DataError("a pickle nested too deeply")
    if isinstance(value, dict):
        return {k: _value(v, budget, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_value(v, budget, depth + 1) for v in value]
    if isinstance(value, Call):
        return _array(value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise DataError(f"a pickle of {type(value).__name__}")


def _array(call: Call) -> np.ndarray:
    """The array that `_reconstruct` and its state (version, shape, dtype, is_fortran, bytes) describe."""
    state = call.state if str(call.function).endswith("._reconstruct") else None
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], Call)):
        raise DataError("a pickled array that is not understood")
    _, shape, described, fortran, data = state
    kind, layout = (described.args or (None,))[0], described.state
    code = kind.decode("latin-1") if isinstance(kind, bytes) else kind
    dtype = _KINDS.get(code) if isinstance(code, str) else None
    order = layout[1] if isinstance(layout, tuple) and len(layout) > 1 else "|"
    if dtype is None or order in (">", b">"):
        raise DataError(f"a pickled array of type {str(code)[:20]!r}; allowed are u1, i4, i8")
    if isinstance(data, str) and max(data, default="") <= "\xff":  # how Python 2 wrote bytes
        data = data.encode("latin-1")
    whole = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if not whole or not isinstance(data, bytes):
        raise DataError("a pickled array that is not understood")
    if check_array_size(shape, dtype.itemsize, "a pickled array") != len(data):
        raise DataError(f"a pickled array of shape {shape} with {len(data)} bytes")
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _python_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = load_plain_pickle(data, where)
    if not isinstance(batch, dict):
        raise DataError(f"{where}: not a CIFAR-10 batch (no dictionary)")
    batch = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    pixels, labels = batch.get("data"), batch.get("labels")
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (_PIXELS,)):
        raise DataError(f"{where}: not a CIFAR-10 batch (`data` must be uint8 [N, 3072])")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise DataError(f"{where}: not a CIFAR-10 batch (`labels` must be a list of 0..9)")
    return pixels, np.array(labels, np.int64)


def _binary_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % (1 + _PIXELS):
        raise DataError(f"{where}: {len(data)} bytes are not a whole number of CIFAR-10 records of {1 + _PIXELS}")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    if records[:, 0].max() > 9:
        raise DataError(f"{where}: a label of {records[:, 0].max()}; CIFAR-10 has 0..9")
    return records[:, 1:], records[:, 0].astype(np.int64)


def _parser(name: str) -> tuple[str, Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]] | None:
    for pattern, parse in ((_PYTHON, _python_batch), (_BINARY, _binary_batch)):
        if match := pattern.search(name):
            return match.group(1), parse
    return None


def is_cifar_folder(path: Path) -> bool:
    """Whether a folder holds an unpacked CIFAR-10."""
    return (path / "data_batch_1").is_file() or (path / "data_batch_1.bin").is_file()


def read_batches(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Batches {name: (pixels uint8 [N, 3072], labels int64 [N])} of a tarball or of the folder that it unpacks to.

    Nothing is unpacked to disk.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if (found := _parser(file.name)) and file.is_file():
                with open_bounded(file, MAX_MEMBER_BYTES) as stream:
                    _add(batches, *found, stream.read(MAX_MEMBER_BYTES + 1), str(file))
        return batches
    try:
        with (
            open_bounded(path, _MAX_TOTAL) as stream,
            tarfile.open(fileobj=cast(IO[bytes], _Ending(stream)), mode="r|") as archive,
        ):
            for member in archive:
                if member.isfile() and (found := _parser(member.name)):
                    where = f"{path}:{member.name}"
                    _add(batches, *found, _member_bytes(archive, member, where), where)
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a readable tarball ({error})") from None
    except DataError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not a readable tarball ({error})") from None
    return batches


class _Ending:
    """A stream that is not read beyond its end without end, as by `tarfile`, which passes over a member of any size."""

    def __init__(self, stream: IO[bytes]):
        self._stream, self._ends = stream, 0

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._ends += not data
        if self._ends > _MOST_ENDS:
            raise EOFError("a member is said to reach beyond the end")
        return data


def _member_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> bytes:
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(f"{where}: {member.size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    if len(data) != member.size:
        raise DataError(f"{where}: truncated, {len(data)} of {member.size} bytes")
    return data


def _add(
    batches: dict[str, tuple[np.ndarray, np.ndarray]],
    name: str,
    parse: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]],
    data: bytes,
    where: str,
) -> None:
    pixels, labels = parse(data, where)
    if len(pixels) != len(labels):
        raise DataError(f"{where}: {len(pixels)} images but {len(labels)} labels")
    batches[name] = (pixels, labels)
