"""idx(.gz) file or folder of MNIST-format files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.idx import find_pair, idx_images, idx_labels
from ambient_train.data.formats.passed_over import passed_over
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name


def _idx_file(path: Path) -> Source:
    """One idx file of images; labels are taken from `*-labels-idx1-ubyte` beside it if that is there."""
    images = idx_images(path)
    beside = path.with_name(path.name.replace("-images", "-labels").replace("idx3", "idx1"))
    labels = idx_labels(beside, len(images)) if beside != path and beside.is_file() else None
    return Source(name=source_name(path), count=len(images), read=lambda ids: images[ids], labels=labels)


def idx_folder(directory: Path, name: str) -> Source:
    """A directory of MNIST-format files: train-* is the training part, t10k-* (where present) the held-out part."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory")
    if (train := find_pair(directory, "train")) is None:
        raise DataError(f"{directory}: no train-images-idx3-ubyte(.gz)")
    pairs = [pair for pair in (train, find_pair(directory, "t10k")) if pair is not None]
    parts = [idx_images(images) for images, _ in pairs]
    if len({part.shape[1:] for part in parts}) > 1:
        raise DataError(f"{pairs[1][0]}: images of {parts[1].shape[2:]}, but training has {parts[0].shape[2:]}")
    counts = [len(part) for part in parts]
    labels = None
    if all(pair[1] is not None for pair in pairs):
        labels = np.concatenate([idx_labels(pair[1], n) for pair, n in zip(pairs, counts, strict=True) if pair[1]])
    total, first = sum(counts), counts[0]

    def read(ids: np.ndarray) -> np.ndarray:
        out = np.empty((len(ids), *parts[0].shape[1:]), np.uint8)
        late = ids >= first
        out[~late] = parts[0][ids[~late]]
        if late.any():
            out[late] = parts[1][ids[late] - first]
        return out

    heldout = np.arange(total) >= first if len(parts) > 1 else None
    used = {path for pair in pairs for path in pair}
    notes = passed_over(path.name for path in sorted(directory.iterdir()) if path.is_file() and path not in used)
    return Source(name=name, count=total, read=read, labels=labels, heldout=heldout, notes=notes)


def _recognises(spec: str) -> bool:
    path = Path(spec).expanduser()
    if path.is_dir():
        return find_pair(path, "train") is not None
    return re.search(r"[-.]idx\d-ubyte(\.gz)?$|\.idx(\.gz)?$", path.name.lower()) is not None


def _open(spec: str) -> Source:
    path = Path(spec).expanduser()
    return idx_folder(path, source_name(path)) if path.is_dir() else _idx_file(path)


MEMBER = Reader(_recognises, _open)
