""".npz of images, labels, noise levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.arrays import as_images, as_labels, as_sigma, load_npz
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name

IMAGE_KEYS = ("images", "arr_0")


def _open(spec: str) -> Source:
    """An .npz with `images` (or `arr_0`), and optionally `labels`, `sigma` and `heldout` (bool, True = held out)."""
    path = Path(spec).expanduser()
    arrays = load_npz(path)
    key = next((key for key in IMAGE_KEYS if key in arrays), None)
    if key is None:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(f"{path}: no array named `images` or `arr_0` (it holds {held})")
    images = as_images(arrays[key], f"{path}:{key}")
    count = len(images)
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=as_labels(arrays["labels"], count, f"{path}:labels") if "labels" in arrays else None,
        sigma=as_sigma(arrays["sigma"], count, f"{path}:sigma") if "sigma" in arrays else None,
        heldout=_as_heldout(arrays["heldout"], count, f"{path}:heldout") if "heldout" in arrays else None,
    )


def _as_heldout(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """bool [count], with images on both sides."""
    if array.shape != (count,) or array.dtype != np.bool_:
        raise DataError(
            f"{where}: {array.dtype} of shape {array.shape} for {count} images; one bool an image is needed"
        )
    if array.all() or not array.any():
        raise DataError(f"{where}: {'all' if array.all() else 'none'} of the images are held out; leave the array out")
    return array


MEMBER = Reader(lambda spec: spec.lower().endswith(".npz"), _open)
