"""Files of arrays with some of their images replaced: every other array, and the type and layout, as they were."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ambient_theory.shared.limits import check_expansion
from ambient_theory.shared.npy import load_npz
from ambient_train.data.images import to_uint8
from ambient_train.data.values import ValueMap

Pixels = Mapping[int, np.ndarray]
Numbers = Callable[[np.ndarray], np.ndarray]
"""From pixels in units of [-1, 1] to the numbers of an array."""


def numbers_of(dtype: np.dtype, values: ValueMap | None, before: ValueMap | None = None) -> Numbers:
    """How pixels become numbers of an array of `dtype`: those of the map; without one, of 8 bits or as they are.

    before: the map whose pixels the array holds.
    """
    if values is None:
        return to_uint8 if dtype == np.uint8 else lambda pixels: pixels
    if before is not None:
        return lambda pixels: before.to_pixels(values.to_values(pixels))
    return values.to_values if dtype.kind == "c" else values.to_own


def put_back(array: np.ndarray, restored: Pixels, numbers: Numbers, first: int = 0) -> np.ndarray:
    """A copy of an array of images ([N, H, W], [N, C, H, W] or [N, H, W, C], or complex), in which the image at k is
    that of id `first` + k where there is one. restored: float32 [C, H, W] in units of [-1, 1]."""
    out = np.array(array)
    for k in range(len(out)):
        if first + k not in restored:
            continue
        own = numbers(restored[first + k])
        if out.dtype.kind == "c":
            own = own[0] + 1j * own[1]
        last = out.ndim == 4 and out.shape[1:] != own.shape and out.dtype.kind != "c"
        out[k] = own.transpose(1, 2, 0) if last else own.reshape(out.shape[1:])
    return out


def write_npy_again(path: Path, array: np.ndarray, restored: Pixels, numbers: Numbers) -> None:
    """A .npy of `put_back` images."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, put_back(array, restored, numbers), allow_pickle=False)


def write_npz_again(
    path: Path, old: Path, keys: Sequence[str], without: Collection[str], restored: Pixels, numbers: Numbers
) -> None:
    """The .npz `old` with `put_back` images in the arrays `keys`, one after the other, and without some arrays."""
    first = 0
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(path, "w") as made:
        infos = {info.filename.removesuffix(".npy"): info for info in source.infolist()}
        for name, info in infos.items():
            if name in keys or name in without:
                continue
            check_expansion(info.compress_size, info.file_size, f"{old}:{info.filename}")
            made.writestr(info.filename, source.read(info), info.compress_type)
        for name in keys:
            array = load_npz(old, only={name})[name]
            made_info = zipfile.ZipInfo(f"{name}.npy")
            made_info.compress_type = infos[name].compress_type
            with made.open(made_info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, put_back(array, restored, numbers, first), allow_pickle=False)
            first += len(array)
