"""The idx format of MNIST: two zero bytes, a type code, the number of axes, the axes as big-endian int32, the values.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database" (1998).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import check_array_size, open_bounded, read_at_most

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> np.ndarray:
    """Array of unsigned bytes in an idx file, plain or gzipped. Raises DataError naming the file."""
    with open_bounded(path) as stream:
        head = stream.read(4)
        if len(head) < 4 or head[:2] != b"\0\0":
            raise DataError(f"{path}: not an idx file (wrong magic number)")
        if head[2] != _UNSIGNED_BYTE:
            raise DataError(f"{path}: idx type 0x{head[2]:02x} is not supported, only unsigned bytes (0x08)")
        if not 1 <= head[3] <= 4:
            raise DataError(f"{path}: an idx file of {head[3]} axes is not a set of images or labels")
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataError(f"{path}: truncated in its header")
        shape = struct.unpack(f">{head[3]}I", sizes)
        size = check_array_size(shape, 1, str(path))
        values = read_at_most(stream, size)
        if len(values) < size:
            raise DataError(f"{path}: truncated, {len(values)} of {size} bytes")
        if stream.read(1):
            raise DataError(f"{path}: longer than its header says ({size} bytes of values)")
    return np.frombuffer(values, np.uint8).reshape(shape)


def idx_images(path: Path) -> np.ndarray:
    """Images [N, 1, H, W] of an idx file of three axes."""
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"{path}: {images.ndim} axes; a set of grey images has 3 (count, rows, columns)")
    return images[:, None]


def find_pair(directory: Path, part: str) -> tuple[Path, Path | None] | None:
    """Image and label file of `train` or `t10k` in a MNIST-format directory, or None."""

    def find(stem: str) -> Path | None:
        for name in (stem, stem.replace("-idx", ".idx")):
            for suffix in ("", ".gz"):
                if (path := directory / (name + suffix)).is_file():
                    return path
        return None

    images = find(f"{part}-images-idx3-ubyte")
    return None if images is None else (images, find(f"{part}-labels-idx1-ubyte"))


def idx_labels(path: Path, count: int) -> np.ndarray:
    """Labels int64 [count] of an idx file of one axis."""
    labels = read_idx(path)
    if labels.shape != (count,):
        raise DataError(f"{path}: shape {labels.shape}, but there are {count} images")
    return labels.astype(np.int64)
