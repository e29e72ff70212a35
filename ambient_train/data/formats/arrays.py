"""NumPy files: .npy and .npz, read without pickles and only after their headers have been checked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.limits import check_array_size, check_expansion, first_line


def read_npy(stream: IO[bytes], where: str, available: int) -> np.ndarray:
    """Array of a .npy stream of `available` bytes. No objects, no size beyond what is there: else DataError."""
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise DataError(f"{where}: .npy version {version} is not supported (1.0 and 2.0 are)")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: not a readable .npy file ({first_line(error)})") from None
    if dtype.hasobject or dtype.kind not in "uifb":
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


def load_npz(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name: all of them, or those among `only`."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    raise DataError(f"{path}: {info.filename!r} is not a .npy array")
                if only is not None and info.filename[: -len(".npy")] not in only:
                    continue
                where = f"{path}:{info.filename}"
                check_expansion(info.compress_size, info.file_size, where)
                with archive.open(info) as stream:
                    arrays[info.filename[: -len(".npy")]] = read_npy(stream, where, info.file_size)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError, NotImplementedError) as error:
        raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from None
    except (RuntimeError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not a readable .npz file ({first_line(error)})") from None
    return arrays


def as_images(array: np.ndarray, where: str) -> np.ndarray:
    """[N, H, W], [N, C, H, W] or [N, H, W, C] of uint8, or of floats in units of [-1, 1], as [N, C, H, W].

    Raises DataError for other shapes and types, values that are not finite, and floats that are 0..255 or 0..1.
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] in (1, 3):
        pass
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    else:
        raise DataError(
            f"{where}: shape {array.shape} is not a set of images; allowed are [N, H, W], [N, C, H, W] and "
            "[N, H, W, C] with 1 or 3 colours"
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise DataError(f"{where}: values of type {array.dtype}; images are uint8 (0..255) or floats (-1..1)")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {int((~np.isfinite(array)).sum())} values are not finite")
    low, high = float(array.min()), float(array.max())
    if low >= 0 and high > 16:
        raise DataError(
            f"{where}: floats from {low:g} to {high:g}; floats must be in units of [-1, 1], store 0..255 as uint8"
        )
    if low >= 0 and 0 < high <= 1:
        raise DataError(f"{where}: floats from {low:g} to {high:g} seem to be in [0, 1]; store 2 x - 1, in [-1, 1]")
    return array


def as_labels(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels int64 [count], from whole numbers or from one-hot rows."""
    if array.ndim == 2 and array.shape[1] > 1 and np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all():
        array = array.argmax(1)
    array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,):
        raise DataError(f"{where}: labels of shape {array.shape} for {count} images")
    if array.dtype.kind not in "ui" and not (np.isfinite(array).all() and np.equal(array, np.rint(array)).all()):
        raise DataError(f"{where}: labels must be whole numbers")
    if (array < 0).any():
        raise DataError(f"{where}: labels must be >= 0, one is {array.min()}")
    return array.astype(np.int64)


def as_sigma(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """Noise levels float32 [count] from one number for all or one an image; finite and >= 0."""
    if array.size == 1:
        array = np.repeat(array.reshape(1), count)
    if array.shape != (count,):
        raise DataError(f"{where}: noise levels of shape {array.shape} for {count} images")
    with np.errstate(over="ignore"):
        sigma = array.astype(np.float32)
    if not (np.isfinite(sigma).all() and (sigma >= 0).all()):
        raise DataError(f"{where}: noise levels must be finite and >= 0")
    return sigma
