"""CIFAR-10 tarballs (Krizhevsky 2009), python and binary version, without trusting their pickles.

The python version holds pickled dictionaries. They are read by an unpickler that can build nothing but containers,
text, bytes, numbers and *descriptions* of arrays: no class or function of any module is ever looked up.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.limits import MAX_MEMBER_BYTES, open_bounded

_PYTHON = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)$")
_BINARY = re.compile(r"(?:^|/)(data_batch_[1-5]|test_batch)\.bin$")
_MAX_TOTAL = 2 * 2**30
_PIXELS = 3 * 32 * 32
_KINDS = {"u1": np.dtype(np.uint8), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}


class _Description:
    """Stands for an array or a dtype inside a pickle: keeps the state it is given and does nothing with it."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any):
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ArrayClass:
    """Stands for `numpy.ndarray` as an argument; cannot be called."""

    __slots__ = ()


def _encode(text: str, codec: str) -> bytes:
    if codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {codec!r}")
    return text.encode("latin-1")


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *arguments: _Description(*arguments)
        if module == "numpy" and name == "dtype":
            return lambda *arguments: _Description(*arguments)
        if module == "numpy" and name == "ndarray":
            return _ArrayClass()
        if module == "_codecs" and name == "encode":
            return lambda *arguments: _encode(*arguments)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an outside object")


def load_plain_pickle(data: bytes, where: str) -> Any:
    """Content of a pickle of containers, text, bytes, numbers and arrays of uint8, int32 or int64; else DataError."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("its memo is larger than the file")
        return _materialise(_Restricted(io.BytesIO(data), encoding="bytes").load(), 0)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except Exception as error:  # a malformed pickle may raise anything
        message = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DataError(f"{where}: a pickle that is damaged or not allowed ({message})") from None


def _materialise(value: Any, depth: int) -> Any:
    if depth > 8:
        raise DataError("a pickle nested too deeply")
    if isinstance(value, dict):
        return {k: _materialise(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_materialise(v, depth + 1) for v in value]
    if isinstance(value, _Description):
        return _array(value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise DataError(f"a pickle of {type(value).__name__}")


def _array(value: _Description) -> np.ndarray:
    """The array that (version, shape, dtype, is_fortran, bytes) describes."""
    state = value.state
    if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Description)):
        raise DataError("a pickled array that is not understood")
    _, shape, kind, fortran, data = state
    code = kind.arguments[0] if kind.arguments else None
    code = code.decode("latin-1") if isinstance(code, bytes) else code
    dtype = _KINDS.get(code) if isinstance(code, str) else None
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "|"
    if dtype is None or order in (">", b">"):
        raise DataError(f"a pickled array of type {code!r}; allowed are u1, i4, i8")
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and isinstance(data, bytes)):
        raise DataError("a pickled array that is not understood")
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size != len(data):
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
        with open_bounded(path, _MAX_TOTAL) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
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
