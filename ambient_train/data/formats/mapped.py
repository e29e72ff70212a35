"""Arrays of numbers that are neither 8 bits nor pixels in [-1, 1]: mapped as files of numbers are (`data.values`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.parsing import parse_json
from ambient_train.data.formats.arrays import TRUTH, arranged, as_images, check_finite, check_floats
from ambient_train.data.formats.noise_arrays import StatedNoise
from ambient_train.data.place import Place
from ambient_train.data.values import ValueMap, find_range

KEY, IN_DATA = "values", "in_units_of_the_data"
"""Name of the array that keeps the map in an .npz; and its key that says that the images are not pixels yet."""


def mapped_images(
    array: np.ndarray, where: str, asked: Place, kind: str, kept: Mapping[str, Any] | None = None
) -> tuple[np.ndarray, ValueMap | None, tuple[str, ...]]:
    """(images [N, C, H, W], how their numbers became pixels, notes).

    uint8, and floats in units of [-1, 1], are as they are, without a map, unless one is asked for. kept: what the
    file says of the map; where it holds pixels that the map made, another range is one of the values before it. Raises
    DataError naming `where`.
    """
    if array.dtype.kind == "c":
        array = arranged(array, where)
    stored = None if kept is None else ValueMap.from_dict(kept, where)
    before = stored if stored is not None and not (kept or {}).get(IN_DATA) else None
    if not asked.mapped and before is not None:
        return as_images(array, where), before, ()
    if not asked.mapped and stored is None and (array.dtype == np.uint8 or array.dtype.kind not in "ui"):
        return as_images(array, where), None, ()
    values = arranged(array, where)
    if values.dtype.kind not in "uif":
        how = TRUTH[values.dtype.kind == "b"]
        raise DataError(f"{where}: values of type {array.dtype} are no numbers that pixels can be made of{how}")
    if values.dtype.kind == "f":
        check_finite(values, where)
    notes: tuple[str, ...] = ()
    dtype = values.dtype.name
    if before is not None:
        values, dtype, kind = _unmapped(values, before, asked, where), before.dtype, before.kind
    if asked.mapped or stored is None:
        stored, notes = find_range(lambda k: values[k], len(values), asked, dtype, kind, where)
    pixels = np.empty(values.shape, np.float32)
    for k, image in enumerate(values):  # one at a time: the way there is in float64
        pixels[k] = stored.to_pixels(image)
    if not np.isfinite(pixels).all():
        raise DataError(f"{where}: values beyond what 32-bit floats hold")
    return np.ascontiguousarray(pixels), stored, notes


def _unmapped(pixels: np.ndarray, before: ValueMap, asked: Place, where: str) -> np.ndarray:
    """The values that a map made these pixels of, float64."""
    if before.counts is not None or asked.counts is not None:
        raise DataError(
            f"{where}: pixels of {before.low:g}..{before.high:g} already, and counts cannot be mapped a second time: "
            "give the files that they were prepared from"
        )
    return np.stack([before.to_values(image) for image in pixels])


def notes_on_floats(images: np.ndarray, noise: StatedNoise, values: ValueMap | None, path: Path) -> tuple[str, ...]:
    """`check_floats`, where the floats are said to be pixels."""
    if values is not None:
        return ()
    levels = noise.sigma
    if noise.pattern is not None and levels is not None:
        levels = levels.reshape(-1, 1, 1, 1) * noise.pattern
    return check_floats(images, levels, path)


def clean_again(
    pixels: np.ndarray, array: np.ndarray, where: str, values: ValueMap | None, sigma: np.ndarray | None
) -> np.ndarray:
    """Pixels of `mapped_images`, where clean counts are read as such; as they are for all other values.

    sigma: levels [N], None where all are clean.
    """
    if values is None or values.counts is None:
        return pixels
    raw = arranged(array, where)
    for k in range(len(raw)) if sigma is None else np.flatnonzero(sigma == 0):
        pixels[k] = values.to_pixels(raw[k], clean=True)
    return pixels


def kept_map(array: np.ndarray | None, where: str) -> dict[str, Any] | None:
    """The content of the array `values` that our own files have; None where there is none."""
    if array is None:
        return None
    try:
        stored = parse_json(array.tobytes())
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise DataError(f"{where}: not a map of values to pixels")
    return stored
