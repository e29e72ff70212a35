""".npz of images, labels, noise levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.npy import Held, list_npz, load_npz
from ambient_theory.shared.parsing import parse_json
from ambient_train.data.formats import columns
from ambient_train.data.formats.arrays import as_labels, as_sigma, as_texts
from ambient_train.data.formats.classes import from_names
from ambient_train.data.formats.mapped import IN_DATA, KEY, clean_again, kept_map, mapped_images, notes_on_floats
from ambient_train.data.formats.noise_arrays import (
    SPECTRUM,
    StatedNoise,
    as_deviation,
    as_noise,
    noise_beside,
    read_from,
    with_spectrum,
)
from ambient_train.data.formats.written_again import Numbers, numbers_of, write_npz_again
from ambient_train.data.place import Place, place
from ambient_train.data.readers import Reader
from ambient_train.data.source import ArrayFile, Source, source_name
from ambient_train.data.values import ValueMap

IMAGE_KEYS = ("images", "arr_0")
_PARTS = ("train", "val", "valid", "test")
_LAYOUTS = (("{}_images", "{}_labels", "{}_{}"), ("x_{}", "y_{}", "{1}_{0}"))  # MedMNIST's, and Keras's
_RESTORED = "noise_before"
_OUR_OWN = ("prepared", "classes", "heldout", "group", KEY)


def _open(spec: str) -> Source:
    """`images` (or `arr_0`), and where they are there `labels`, `sigma`, `spectrum`, `heldout` (bool) and `classes`.

    labels: whole numbers, one-hot rows or text. sigma: one for all, one an image or one a pixel, under that name or
    another of `columns.NOISE_NAMES`. spectrum: of noise that is correlated. Else the parts of MedMNIST (train_images,
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
    asked = {key, "labels", SPECTRUM, *_OUR_OWN}
    arrays = load_npz(path, only=asked, text=("labels", "classes"))
    kept = kept_map(arrays.get(KEY), f"{path}:{KEY}")
    images, values, mapped = mapped_images(arrays[key], f"{path}:{key}", place_asked, "npz", kept)
    count = len(images)
    labels, classes = _labels(arrays["labels"], count, f"{path}:labels") if "labels" in arrays else (None, None)
    level, inside, notes = _level(held, asked, images.shape), StatedNoise(), []
    if level:
        asked.add(level)
        stated = as_deviation(load_npz(path, only={level})[level], level, f"{path}:{level}")
        inside = as_noise(stated, images.shape, f"{path}:{level}")
        notes = [read_from(level, f"the array {level}")] if level != "sigma" else []
    before = None if kept is None or IN_DATA in kept else ValueMap.from_dict(kept, f"{path}:{KEY}")
    if before is not None and place_asked.mapped and inside.sigma is not None:  # as the values, in their units
        inside = replace(inside, sigma=inside.sigma * np.float32(before.unit))
    in_pixels = before is not None and not place_asked.mapped
    noise, said = noise_beside(path, path.stem, images.shape, inside)
    notes = [*said] if said and inside.sigma is not None else [*notes, *said]
    noise = with_spectrum(noise, arrays.get(SPECTRUM), images.shape, f"{path}:{SPECTRUM}")
    noise = noise.or_counts(values, count, place_asked.counts is not None)
    if not in_pixels or noise.sigma is not inside.sigma:  # levels beside the file are in the units of its values
        noise = noise.in_pixels(values)
    if not in_pixels:
        images = clean_again(images, arrays[key], f"{path}:{key}", values, noise.sigma)
    of_array = (None, None) if in_pixels else (values, before)
    numbers = numbers_of(arrays[key].dtype, *of_array)
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=labels,
        sigma_n=noise.sigma,
        heldout=_as_heldout(arrays["heldout"], count, f"{path}:heldout") if "heldout" in arrays else None,
        group=as_labels(arrays["group"], count, f"{path}:group") if "group" in arrays else None,
        classes=classes or _class_names(arrays, f"{path}:classes"),
        notes=(
            *mapped,
            *notes,
            *noise.notes(),
            *notes_on_floats(images, noise, values, path),
            *_unread(held, asked, values),
        ),
        values=values,
        pattern=noise.pattern,
        spectrum=noise.spectrum,
        file=_file(path, (key,), {level or "sigma", SPECTRUM}, numbers),
    )


def _of_parts(
    path: Path, held: Mapping[str, Held], parts: Collection[str], names: tuple[str, str, str], place_asked: Place
) -> Source:
    """Arrays by part, the training part first."""
    image_keys, label_keys = ([name.format(part) for part in parts] for name in names[:2])
    level, sigma_keys = _level_of_parts(held, image_keys, parts, names[2])
    asked = {*image_keys, *label_keys, *sigma_keys}
    arrays = load_npz(path, only=asked, text=label_keys)
    if len({(arrays[key].shape[1:], arrays[key].dtype) for key in image_keys}) > 1:
        shapes = ", ".join(f"{key} {held[key]}" for key in image_keys)
        raise DataError(f"{path}: parts of different shape or type ({shapes})")
    counts = [len(arrays[key]) for key in image_keys]
    whole = np.concatenate([arrays[key] for key in image_keys])
    images, values, mapped = mapped_images(whole, f"{path}:{image_keys[0]}", place_asked, "npz")
    labels, classes, notes = None, None, list(_unread(held, asked, values))
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
        of_part = zip(sigma_keys, counts, strict=True)
        levels = [as_sigma(as_deviation(arrays[key], level, f"{path}:{key}"), n, f"{path}:{key}") for key, n in of_part]
        sigma = np.concatenate(levels)
        notes += [read_from(level, f"the arrays {', '.join(sigma_keys)}")] if level != "sigma" else []
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
        notes=(*mapped, *notes, *notes_on_floats(images, noise, values, path)),
        values=values,
        file=_file(path, image_keys, sigma_keys, numbers_of(whole.dtype, values)),
    )


def _file(path: Path, keys: Sequence[str], without: Collection[str], numbers: Numbers) -> ArrayFile:
    return ArrayFile(path.name, lambda new, restored: write_npz_again(new, path, keys, without, restored, numbers))


def _level_of_parts(
    held: Mapping[str, Held], image_keys: Sequence[str], parts: Collection[str], name: str
) -> tuple[str, list[str]]:
    """What the levels of the parts are called, and the name of each array; `sigma` where there are none."""
    shapes = {key: it.shape for key, it in held.items()}
    for level in columns.NOISE_NAMES:
        keys = [name.format(part, level) for part in parts]
        for key, images in zip(keys, image_keys, strict=True):
            able, of = shapes.get(key), shapes[images]
            if able is not None and of is not None and columns.pick_noise({level: able}, (of[0], 1, *of[1:3])):
                return level, keys
    return "sigma", [name.format(part, "sigma") for part in parts]


def _level(held: Mapping[str, Held], others: Collection[str], shape: Sequence[int]) -> str | None:
    """The array that states the noise of images of that shape; none of restored ones, whose `std` is another."""
    if _RESTORED in held:
        return None
    shapes = {name: it.shape for name, it in held.items() if it.shape is not None and name not in others}
    return columns.pick_noise(shapes, shape)


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


def _unread(held: Mapping[str, Held], read: Collection[str], values: ValueMap | None) -> tuple[str, ...]:
    """One sentence that names the arrays that are not read, or none."""
    others = {name: what for name, what in held.items() if name not in read}
    if not others:
        return ()
    shown = ", ".join(f"{name} ({what})" for name, what in list(others.items())[:6])
    more = f" and {len(others) - 6} more" if len(others) > 6 else ""
    unit = "[-1, 1]" if values is None else "the file"
    how = f"noise levels are read from `sigma` (one an image or a pixel, in units of {unit}), labels from `labels`"
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
