"""HDF5: file.h5:/dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import check_array_size, check_expansion
from ambient_train.data.formats.arrays import TRUTH, as_labels
from ambient_train.data.formats.columns import pick_noise
from ambient_train.data.formats.extras import import_extra
from ambient_train.data.formats.frames import Frames, as_chw, as_stored, check_shape, layout
from ambient_train.data.formats.noise_arrays import (
    SPECTRUM,
    StatedNoise,
    as_deviation,
    as_noise,
    read_from,
    with_spectrum,
)
from ambient_train.data.readers import Reader
from ambient_train.data.readers._aside import open_aside
from ambient_train.data.readers._numbers import file_source, is_one

_USUAL = ("images", "image", "data", "raw", "frames", "stack", "volume", "x", "exported_data")
_MOST, _NAMED = 10_000, 5
_OF_THE_FORMAT = frozenset(
    ("CLASS", "VERSION", "TITLE", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS", "_NCProperties")
)
"""Attributes that libraries write for themselves (dimension scales, PyTables, netCDF)."""


class Hdf5:
    """The data set that is asked for, else the one that is called `images`, `data`, ..., else the only one of images.

    Noise levels (one an image or a pixel) and labels are read from data sets beside it, named as the arrays of an .npz.
    """

    suffixes: tuple[str, ...] = (".h5", ".hdf5", ".hdf", ".he5")

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        """The images, read by a process of its own: libhdf5 crashes or never returns on some damaged files."""
        import_extra("h5py", "science", f"{where}: reading HDF5")
        return open_aside("hdf5", file, where, inside)

    def open_here(self, file: BinaryIO, where: str, inside: str) -> Frames:
        """The images, read by this process."""
        h5py: Any = import_extra("h5py", "science", f"{where}: reading HDF5")
        size = file.seek(0, 2)
        file.seek(0)
        store = h5py.File(file, "r")
        sets = _datasets(h5py, store, where)
        name = _chosen(sets, _met_as(h5py, store, sets, inside), where)
        dataset = sets[name]
        count, shape, at, last = layout(dataset.shape, f"{where}:/{name}")
        shape = check_shape(count, shape, dataset.dtype, f"{where}:/{name}")
        check_expansion(size, check_array_size((count, *shape), dataset.dtype.itemsize, where), f"{where}:/{name}")
        if dataset.external is not None or dataset.is_virtual:
            raise DataError(f"{where}:/{name}: its values are in other files; copy them into one")
        folder = name.rpartition("/")[0]
        beside = {n.rpartition("/")[2]: n for n in sets if n.rpartition("/")[0] == folder and n != name}
        noise, labels, read_too = StatedNoise(), None, {name}
        notes = []
        level = pick_noise({n: sets[beside[n]].shape for n in beside if n != "labels"}, (count, *shape))
        if level is not None:
            read_too.add(beside[level])
            stated = _stated(sets[beside[level]], (count, *shape), size, f"{where}:/{beside[level]}")
            stated = as_deviation(stated, level, f"{where}:/{beside[level]}")
            noise = as_noise(stated, (count, *shape), f"{where}:/{beside[level]}")
            if level != "sigma":
                notes.append(read_from(level, f"the data set /{beside[level]}"))
        if SPECTRUM in beside:
            read_too.add(beside[SPECTRUM])
            power = _stated(sets[beside[SPECTRUM]], (count, *shape), size, f"{where}:/{beside[SPECTRUM]}")
            noise = with_spectrum(noise, power, (count, *shape), f"{where}:/{beside[SPECTRUM]}")
        if "labels" in beside:
            read_too.add(beside["labels"])
            labels = as_labels(_small(sets[beside["labels"]], count, where), count, f"{where}:/{beside['labels']}")
        unread = [n for n in sets if n not in read_too]
        if unread:
            notes.append(
                f"of an HDF5 file the data set /{name} is read, not {_some('/' + n for n in unread)}; "
                "`file.h5:/NAME` chooses another"
            )
        if attributes := _attributes(store, name):
            notes.append(
                f"attributes of an HDF5 file are not read: {_some(attributes)}; noise levels are read from a data set "
                "`sigma` beside the images"
            )

        def read(k: int) -> np.ndarray:
            return as_chw(np.asarray(dataset[at(k)] if at(k) else dataset[()]), last)

        return Frames(count, shape, dataset.dtype, read, store.close, noise, labels, tuple(notes))

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        h5py: Any = import_extra("h5py", "science", f"{path}: writing HDF5")
        stored = as_stored(images)
        if like is None:
            with h5py.File(path, "w") as made:
                made.create_dataset(inside.strip("/") or "images", data=stored)
            return
        with h5py.File(like, "r") as store, h5py.File(path, "w") as made:
            sets = _datasets(h5py, store, str(path))
            name = _chosen(sets, _met_as(h5py, store, sets, inside), str(path))
            if sets[name].size == stored.size:
                _, _, _, last = layout(sets[name].shape, str(path))
                arranged = images.transpose(0, 2, 3, 1) if last else images
                stored = arranged.reshape(sets[name].shape)
            left_out = {name, *_of_noise(sets, name, images.shape)}
            for other, dataset in sets.items():
                if other not in left_out and dataset.external is None and not dataset.is_virtual:
                    store.copy(dataset, made.require_group("/" + other.rpartition("/")[0]), other.rpartition("/")[2])
            made.create_dataset(name, data=stored.astype(sets[name].dtype, copy=False))
            for _, holder, same in _holders(store, made, name):
                for key, value in holder.attrs.items():
                    if key not in _OF_THE_FORMAT:
                        same.attrs[key] = value


def _datasets(h5py: Any, store: Any, where: str) -> dict[str, Any]:
    """Data sets by path, without following links out of the file; what has several names is met once."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if len(found) > _MOST:
            raise DataError(f"{where}: more than {_MOST:,} data sets")
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found[name] = item

    store.visititems(note)
    return found


def _some(names: Iterable[str]) -> str:
    """The first five of them."""
    every = list(names)
    return ", ".join(every[:_NAMED]) + ", ..." * (len(every) > _NAMED)


def _attributes(store: Any, name: str) -> list[str]:
    """Names of the attributes that people gave to the data set, to the groups above it and to the file."""
    holders = _holders(store, store, name)
    return [f"{where}@{key}" for where, holder, _ in holders for key in holder.attrs if key not in _OF_THE_FORMAT]


def _holders(store: Any, other: Any, name: str) -> list[tuple[str, Any, Any]]:
    """(path, that in `store`, that in `other`) of the file, the groups above a data set, and the data set itself."""
    parts = name.split("/")
    paths = ["/", *("/" + "/".join(parts[: k + 1]) for k in range(len(parts)))]
    return [(path, store[path], other[path]) for path in paths]


def _of_noise(sets: dict[str, Any], images: str, shape: tuple[int, ...]) -> set[str]:
    """The data sets that say how noisy images of `shape` (N, C, H, W) are: of restored ones they would be wrong."""
    folder = images.rpartition("/")[0]
    beside = {n.rpartition("/")[2]: n for n in sets if n.rpartition("/")[0] == folder and n != images}
    level = pick_noise({n: sets[beside[n]].shape for n in beside if n != "labels"}, shape)
    return {beside[n] for n in (level, SPECTRUM) if n in beside}


def _met_as(h5py: Any, store: Any, sets: dict[str, Any], inside: str) -> str:
    """The name by which a data set was met, of one of its names; no soft link is followed, which may leave the file."""
    parts = inside.strip("/").split("/")
    paths = ["/".join(parts[: k + 1]) for k in range(len(parts))]
    if paths[-1] in sets or not all(isinstance(store.get(path, getlink=True), h5py.HardLink) for path in paths):
        return inside
    return next((name for name, item in sets.items() if item == store[paths[-1]]), inside)


def _chosen(sets: dict[str, Any], inside: str, where: str) -> str:
    able = {n: d for n, d in sets.items() if len(d.shape) >= 2 and d.dtype.kind in "uifc" and min(d.shape) > 0}
    shown = ", ".join(f"/{n} ({d.dtype} {list(d.shape)})" for n, d in list(able.items())[:6]) or "none"
    if inside:
        if (name := inside.strip("/")) in sets:
            return name
        raise UsageError(f"{where}: no data set {inside} in it; of images there are: {shown}")
    stacks = {n: d for n, d in able.items() if len(d.shape) >= 3 and min(d.shape[-2:]) > 1} or able
    if len(stacks) == 1:
        return next(iter(stacks))
    usual = [n for word in _USUAL for n in stacks if n.rpartition("/")[2].lower() == word]
    if usual and [n.rpartition("/")[2].lower() for n in usual].count(usual[0].rpartition("/")[2].lower()) == 1:
        return usual[0]
    if not able:
        held = _some(f"/{n} ({d.dtype} {list(d.shape)})" for n, d in sets.items()) or "none"
        raise DataError(
            f"{where}: no data set of images in it, two axes or more of numbers; its data sets: {held}"
            + TRUTH[any(d.dtype.kind == "b" for d in sets.values())]
        )
    raise UsageError(
        f"{where}: several data sets could be the images ({shown}): name one, as in {where}:/{next(iter(able))}"
    )


def _stated(dataset: Any, shape: tuple[int, ...], size: int, where: str) -> np.ndarray:
    """What states the noise of images of `shape`: no more numbers than they have."""
    if dataset.dtype.kind not in "uif" or dataset.external is not None or dataset.is_virtual:
        raise DataError(f"{where}: {dataset.dtype} of shape {dataset.shape} states no noise")
    if dataset.size > int(np.prod(shape)):
        raise DataError(f"{where}: {dataset.size:,} noise levels for images of shape {shape}")
    check_expansion(size, check_array_size(dataset.shape or (1,), dataset.dtype.itemsize, where), where)
    return np.asarray(dataset[()]).reshape(dataset.shape or (1,))


def _small(dataset: Any, count: int, where: str) -> np.ndarray:
    if dataset.size > max(count, 1) * 4096 or dataset.dtype.kind not in "uifb":
        raise DataError(f"{where}:{dataset.name}: {dataset.dtype} of shape {dataset.shape} for {count} images")
    return np.asarray(dataset[()]).reshape(dataset.shape or (1,))


FORMAT = Hdf5()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
