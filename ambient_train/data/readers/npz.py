""".npz of images, labels, noise levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.npy import list_npz, load_npz
from ambient_theory.shared.parsing import parse_json
from ambient_train.data.formats import columns
from ambient_train.data.formats.arrays import as_labels, as_sigma, as_texts
from ambient_train.data.formats.classes import from_names
from ambient_train.data.formats.mapped import IN_DATA, KEY, clean_again, kept_map, mapped_images, notes_on_floats
from ambient_train.data.formats.noise_arrays import SPECTRUM, StatedNoise, as_noise, noise_beside, with_spectrum
from ambient_train.data.place import Place, place
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name

IMAGE_KEYS = ("images", "arr_0")
_PARTS = ("train", "val", "valid", "test")
_LAYOUTS = (("{}_images", "{}_labels", "{}_sigma"), ("x_{}", "y_{}", "sigma_{}"))  # MedMNIST's, and Keras's
_OUR_OWN = ("prepared", "classes", "heldout", "group", KEY)


def _open(spec: str) -> Source:
    """`images` (or `arr_0`), and where they are there `labels`, `sigma`, `spectrum`, `heldout` (bool) and `classes`.

    labels: whole numbers, one-hot rows or text. sigma: one for all, one an image or one a pixel, under that name or
    another of `columns.SIGMA_ARRAYS`. spectrum: of noise that is correlated. Else the parts of MedMNIST (train_images,
    val_images, test_images, train_labels, ...) or of Keras (x_train, y_train, x_test, ...): all but train are held out.
    Every array that is not read is named.
    """
    place_asked = place(spec)
    path = place_asked.path
    held = list_npz(path)
    key = next((key for key in IMAGE_KEYS if key in held), None)
    for names in _LAYOUTS if key is None else ():
        parts = [part for part in _PARTS if names[0].format(part) in held]
        if "train" in parts:
            return _of_parts(path, held, parts, names, place_asked)
    if key is None:
        found = ", ".join(sorted(held)) or "nothing"
        raise DataError(f"{path}: no array named `images` or `arr_0` (it holds {found}): name the pixels `images`")
    level = columns.pick(held, columns.SIGMA_ARRAYS)
    asked = {key, "labels", SPECTRUM, *_OUR_OWN} | ({level} if level else set())
    arrays = load_npz(path, only=asked, text=("labels", "classes"))
    kept = kept_map(arrays.get(KEY), f"{path}:{KEY}")
    images, values, mapped = mapped_images(arrays[key], f"{path}:{key}", place_asked, "npz", kept)
    count = len(images)
    labels, classes = _labels(arrays["labels"], count, f"{path}:labels") if "labels" in arrays else (None, None)
    noise = as_noise(arrays[level], images.shape, f"{path}:{level}") if level else StatedNoise()
    noise = noise if level else noise_beside(path, path.stem, images.shape, noise)
    noise = with_spectrum(noise, arrays.get(SPECTRUM), images.shape, f"{path}:{SPECTRUM}")
    noise = noise.or_counts(values, count, place_asked.counts is not None)
    if kept is None or IN_DATA in kept:
        noise = noise.in_pixels(values)
        images = clean_again(images, arrays[key], f"{path}:{key}", values, noise.sigma)
    notes = [f"noise levels are read from the array {level}"] if level and level != "sigma" else []
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=labels,
        sigma_n=noise.sigma,
        heldout=_as_heldout(arrays["heldout"], count, f"{path}:heldout") if "heldout" in arrays else None,
        group=as_labels(arrays["group"], count, f"{path}:group") if "group" in arrays else None,
        classes=classes or _class_names(arrays, f"{path}:classes"),
        notes=(*mapped, *notes, *noise.notes(), *notes_on_floats(images, noise.sigma, values), *_unread(held, asked)),
        values=values,
        pattern=noise.pattern,
        spectrum=noise.spectrum,
    )


def _of_parts(
    path: Path, held: Mapping[str, str], parts: Collection[str], names: tuple[str, str, str], place_asked: Place
) -> Source:
    """Arrays by part, the training part first."""
    image_keys, label_keys, sigma_keys = ([name.format(part) for part in parts] for name in names)
    asked = {*image_keys, *label_keys, *sigma_keys}
    arrays = load_npz(path, only=asked, text=label_keys)
    if len({(arrays[key].shape[1:], arrays[key].dtype) for key in image_keys}) > 1:
        shapes = ", ".join(f"{key} {held[key]}" for key in image_keys)
        raise DataError(f"{path}: parts of different shape or type ({shapes})")
    counts = [len(arrays[key]) for key in image_keys]
    whole = np.concatenate([arrays[key] for key in image_keys])
    images, values, mapped = mapped_images(whole, f"{path}:{image_keys[0]}", place_asked, "npz")
    labels, classes, notes = None, None, list(_unread(held, asked))
    if all(key in arrays for key in label_keys):
        try:
            if any(arrays[key].dtype.kind in "US" for key in label_keys):
                texts = [text for key in label_keys for text in as_texts(arrays[key], f"{path}:{key}")]
                labels, classes = from_names(texts)
            else:
                of_part = zip(label_keys, counts, strict=True)
                labels = np.concatenate([as_labels(arrays[key], n, f"{path}:{key}") for key, n in of_part])
        except DataError as error:
            notes.append(f"labels are not read: {str(error).removeprefix(f'{path}:')}")
    sigma, given = None, [key for key in sigma_keys if key in arrays]
    if given:
        if lacking := sorted(set(sigma_keys) - set(given)):
            raise DataError(
                f"{path}: noise levels {given[0]} but no {lacking[0]}; give them for every part (0 = clean)"
            )
        levels = [as_sigma(arrays[key], n, f"{path}:{key}") for key, n in zip(sigma_keys, counts, strict=True)]
        sigma = np.concatenate(levels)
    noise = StatedNoise(sigma).or_counts(values, len(images), place_asked.counts is not None).in_pixels(values)
    images = clean_again(images, whole, f"{path}:{image_keys[0]}", values, noise.sigma)
    return Source(
        name=source_name(path),
        count=len(images),
        read=lambda ids: images[ids],
        labels=labels,
        sigma_n=noise.sigma,
        heldout=np.arange(len(images)) >= counts[0] if len(parts) > 1 else None,
        classes=classes,
        notes=(*mapped, *notes, *notes_on_floats(images, sigma, values)),
        values=values,
    )


def _labels(array: np.ndarray, count: int, where: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if array.dtype.kind not in "US":
        return as_labels(array, count, where), None
    if array.shape not in ((count,), (count, 1)):
        raise DataError(f"{where}: labels of shape {array.shape} for {count} images")
    return from_names(as_texts(array, where))


def _class_names(arrays: Mapping[str, np.ndarray], where: str) -> tuple[str, ...] | None:
    """Names that `data corrupt` and `data prepare` wrote down."""
    if "classes" in arrays and arrays["classes"].dtype.kind in "US":
        return tuple(as_texts(arrays["classes"], where))
    try:
        names = parse_json(arrays["prepared"].tobytes())["label_names"] if "prepared" in arrays else None
    except (ValueError, TypeError, KeyError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _unread(held: Mapping[str, str], read: Collection[str]) -> tuple[str, ...]:
    """One sentence that names the arrays that are not read, or none."""
    others = {name: what for name, what in held.items() if name not in read}
    if not others:
        return ()
    shown = ", ".join(f"{name} ({what})" for name, what in list(others.items())[:6])
    more = f" and {len(others) - 6} more" if len(others) > 6 else ""
    how = "noise levels are read from `sigma` (one an image or a pixel, in units of [-1, 1]), labels from `labels`"
    return (f"not read: the array{'s' * (len(others) > 1)} {shown}{more}; {how}",)


def _as_heldout(array: np.ndarray, count: int, where: str) -> np.ndarray:
    """bool [count], with images on both sides."""
    if array.shape != (count,) or array.dtype != np.bool_:
        raise DataError(
            f"{where}: {array.dtype} of shape {array.shape} for {count} images; one bool an image is needed"
        )
    if array.all() or not array.any():
        raise DataError(f"{where}: {'all' if array.all() else 'none'} of the images are held out; leave the array out")
    return array


MEMBER = Reader(lambda spec: place(spec).path.name.lower().endswith(".npz"), _open)
