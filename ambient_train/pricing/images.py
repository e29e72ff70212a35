"""The clean images of any source, small enough for networks that train in seconds, with a part held out.

Noise is what the user's noisy images would show at that size: y = x + n before resizing (`pricing.noise`).
"""

from __future__ import annotations

import contextlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_file
from ambient_theory.shared.npy import load_npz
from ambient_train.data.formats.mapped import KEY
from ambient_train.data.images import ImageSet
from ambient_train.data.load import split_ids, subset_ids
from ambient_train.data.prepare.archives import write_npy
from ambient_train.data.readers import open_source
from ambient_train.data.resize import area_resize
from ambient_train.data.source import Source, prepare_command
from ambient_train.data.values import ValueMap
from ambient_train.pricing.noise import SmallNoise, small_noise
from ambient_train.settings.worth import SIDES

MOST_TRAINING, MOST_HELDOUT = 6_000, 1_024
"""Read at most: decoding large images takes time, and short trainings tell no more of them apart."""
LEAST_IMAGES = 100
"""Below, there is no curve: it takes clean-only sizes over a factor of eight, a mixture, and images to judge by."""
_WANTED, _SHARES = 512, (0.1, 0.3)
"""Held out where the source has no such part: about so many images, within these shares."""
_CHUNK_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class SmallImages:
    """images uint8 or float32 [N, C, S, S], the held-out ones marked; side: in pixels, in the source.

    noise: that is priced, at this size. passed_over: images that came with noise. values: how numbers became these
    pixels, None for those of 8 bits; floats that were pixels already have the map that leaves them.
    """

    name: str
    images: np.ndarray
    heldout: np.ndarray
    side: int
    noise: SmallNoise
    passed_over: int
    notes: tuple[str, ...]
    values: ValueMap | None = None

    @property
    def resolution(self) -> int:
        return int(self.images.shape[-1])

    @property
    def n_train(self) -> int:
        return int((~self.heldout).sum())

    @property
    def n_heldout(self) -> int:
        return int(self.heldout.sum())

    @property
    def content_hash(self) -> str:
        """Of pixels and of what is held out."""
        ids = np.arange(len(self.images), dtype=np.int64)
        return ImageSet(self.name, self.images, self.heldout.astype(np.int64), ids).content_hash

    def sigma_n(self, sigma: float) -> float:
        """The noise at this size of images that had `sigma` at theirs."""
        return float(f"{sigma * self.noise.scale:.6g}")

    def sentences(self) -> list[str]:
        """What was done, for people."""
        out = [f"{self.name}: {self.n_train:,} clean images to train on, {self.n_heldout:,} held out"]
        if self.passed_over:
            out.append(f"{self.passed_over:,} images came with noise and are left out: it is added to clean ones here")
        noise = self.noise
        if noise.array is not None:
            out.append(f"the noise that is priced is not white: {noise.asked}; --sigma is the deviation of a pixel")
        if self.side != self.resolution:
            text = f"{self.side} pixels are averaged to {self.resolution}: {noise.scale:.3g} of the noise is left"
            if noise.correlation > 0:
                text += f"; its correlation of {noise.correlation:.2g} between neighbouring pixels is left out"
            out.append(text)
        return out + [f"note: {note}" for note in self.notes]


def small_images(spec: str, resolution: int | None, noise: str = "") -> SmallImages:
    """Read the clean images of a source and bring them to a small size. resolution None: as they are up to the largest
    of `SIDES`, else the smallest. noise: kind of the noise that is priced, as `--noise` names it. Raises DataError for
    no clean images (`NoCleanImages`), too few, or not square ones.
    """
    source = open_source(spec)
    if source.question:
        raise DataError(f"{spec}: {source.question}")
    clean, passed_over = _clean_parts(source)
    total = sum(map(len, clean))
    if total == 0:
        raise NoCleanImages(f"{spec}: none of the {source.count:,} images is clean, so nothing can be measured on them")
    if total < LEAST_IMAGES or min(map(len, clean)) < 2:
        raise DataError(
            f"{spec}: {total:,} clean images are too few to price a noisy one: it takes {LEAST_IMAGES} or more"
        )
    train, heldout = subset_ids(clean[0], MOST_TRAINING), subset_ids(clean[1], MOST_HELDOUT)
    ids = np.sort(np.concatenate([train, heldout]))
    first = source.read(ids[:1])
    channels, height, width = first.shape[1:]
    if height != width:
        command = prepare_command(spec, first.shape, floats=first.dtype != np.uint8)
        raise DataError(f"{spec}: images of {width} x {height} are not square; `{command}` crops them")
    as_is = width <= SIDES[-1] and width % 2 == 0
    side = resolution or (width if as_is else SIDES[0])
    if width < side or width < SIDES[0]:
        raise DataError(f"{spec}: images of {width} pixels are smaller than {max(side, SIDES[0])}: nothing to ask them")
    priced = small_noise(noise, source, int(channels), int(width), side, spec)
    as_pixels = None if first.dtype == np.uint8 else ValueMap(-1.0, 1.0, first.dtype.name, "npz")
    return SmallImages(
        source.name,
        _read(source, ids, side),
        np.isin(ids, heldout),
        int(width),
        priced,
        passed_over,
        tuple(source.notes),
        source.values or as_pixels,
    )


class NoCleanImages(DataError):
    """The data hold no clean image."""


def write_images(small: SmallImages, path: Path) -> None:
    """As an .npz that `--data` reads, with the held-out part marked and the map of its values, without which floats
    would have to lie in [-1, 1]; left alone if it holds the same already."""
    arrays = {"images": small.images, "heldout": small.heldout}
    if small.values is not None:
        arrays[KEY] = small.values.to_bytes()
    if path.is_file():
        with contextlib.suppress(DataError, KeyError):  # damaged, or others: written again
            stored = load_npz(path, only=tuple(arrays))
            if all(np.array_equal(stored[name], array) for name, array in arrays.items()):
                return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            write_npy(archive, name, array)


def _clean_parts(source: Source) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Ids of the clean images to train on and of those held out, and how many images came with noise."""
    noisy = np.zeros(source.count, bool) if source.sigma_n is None else source.sigma_n > 0
    share = None
    if source.heldout is None:
        share = float(np.clip(_WANTED / max(source.count - int(noisy.sum()), 1), *_SHARES))
        share = max(share, source.default_holdout)
    if noisy.all():
        return (np.zeros(0, np.int64), np.zeros(0, np.int64)), int(noisy.sum())
    parts = [split_ids(source, part, share) for part in ("train", "heldout")]
    train, heldout = (ids[~noisy[ids]] for ids in parts)
    return (train, heldout), int(noisy.sum())


def _read(source: Source, ids: np.ndarray, side: int) -> np.ndarray:
    first = source.read(ids[:1])
    chunk = max(1, _CHUNK_BYTES // first.nbytes)
    parts = [area_resize(source.read(ids[k : k + chunk]), side) for k in range(0, len(ids), chunk)]
    return np.concatenate(parts)
