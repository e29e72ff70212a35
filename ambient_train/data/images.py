"""Images in memory: pixels with a label, a stable identity and a noise level each; and pixels as bytes and pictures.

Pixels are x = uint8/127.5 - 1 in [-1, 1]: `to_pixels`, and back `to_uint8`.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from ambient_theory.shared.errors import DataError
from ambient_train.data.values import ValueMap, told_in

if TYPE_CHECKING:
    import torch

_SHOWN_LEVELS = 6


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images [N, C, H, W], uint8 or float32 (float32 is in units of [-1, 1] and may exceed it for noisy data).

    labels int64 [N] or None. ids int64 [N]: stable identity of each image, its index in the sorted full source; every
    random draw that belongs to an image is keyed by it. sigma_n float32 [N]: standard deviation of the noise that is
    already in each image, in units of [-1, 1] (None = all clean). classes: name of each label, where they have names.
    notes: what was seen and not read, or changed on the way, one sentence each; print them. values: how numbers of
    files became these pixels, where they are not of 8 bits. pattern float32 [N, 1 or C, H, W]: standard deviation of
    each pixel's noise relative to sigma_n, of mean square 1 (1 for clean images). spectrum float32 [1 or C, H, W//2 +
    1]: power spectrum of the noise of all images, relative to its mean. At most one of the two, None for white noise;
    see `noise_models`. The name, classes, notes and values are no content: they
    are not hashed.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    ids: np.ndarray
    sigma_n: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    values: ValueMap | None = None
    pattern: np.ndarray | None = None
    spectrum: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        assert not {"/", "\\"} & set(self.name), self.name  # a set is known by its content, not by a path
        assert self.images.ndim == 4, self.images.shape
        assert self.images.dtype in (np.uint8, np.float32), self.images.dtype
        for name, dtype in (("ids", np.int64), ("labels", np.int64), ("sigma_n", np.float32)):
            column = getattr(self, name)
            assert (column is None and name != "ids") or (column.shape == (n,) and column.dtype == dtype), name
        assert self.pattern is None or (self.spectrum is None and self.sigma_n is not None), "one kind of noise"
        assert self.pattern is None or (len(self.pattern) == n and self.pattern.shape[2:] == self.images.shape[2:])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def resolution(self) -> int:
        """Side of the square images, in pixels."""
        return self.images.shape[-1]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour, 2 for real and imaginary part."""
        return self.images.shape[1]

    @property
    def label_dim(self) -> int:
        """Number of classes, 0 without labels: as many as have names, and more where a label is beyond them."""
        if self.labels is None or len(self.labels) == 0:
            return 0
        return max(int(self.labels.max()) + 1, len(self.classes or ()))

    @functools.cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of pixels, labels, ids, noise levels and kind of noise; the name does not count."""
        digest = hashlib.sha256()
        for field in ("images", "labels", "ids", "sigma"):  # the names that hashes on record were made with
            array = self.sigma_n if field == "sigma" else getattr(self, field)
            digest.update(f"{field} {None if array is None else (array.dtype.str, array.shape)}\n".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        for field in ("pattern", "spectrum"):  # later: of white noise nothing is added to the hash
            array = getattr(self, field)
            if array is not None:
                digest.update(f"{field} {array.dtype.str, array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def pixels(self, index: np.ndarray | slice | None = None) -> np.ndarray:
        """float32 [n, C, H, W] in units of [-1, 1], of all images or of those at `index`."""
        return to_pixels(self.images if index is None else self.images[index])

    @property
    def already_noisy(self) -> int:
        """Number of images that came with noise."""
        return 0 if self.sigma_n is None else int((self.sigma_n > 0).sum())

    def noisy_in_turn(self, count: int) -> npt.NDArray[np.int64]:
        """Positions [count] of the images that came with noise, again and again: whose kind of noise `count` others get
        that are made noisy beside them. The first image where none is noisy."""
        noisy = np.zeros(0, np.int64) if self.sigma_n is None else np.flatnonzero(self.sigma_n > 0)
        return np.resize(noisy if len(noisy) else np.zeros(1, np.int64), count)

    def noise_summary(self) -> str:
        """How many images came with noise and at which levels, in units of [-1, 1]; "" where all are clean.

        As in `492 of 547 images came with noise: 362 at 0.05, 130 at 0.2`.
        """
        if self.sigma_n is None or not self.sigma_n.any():
            return ""
        noisy = self.sigma_n[self.sigma_n > 0]
        levels, counts = np.unique(noisy, return_counts=True)
        text = ", ".join(f"{n:,} at {level:.3g}" for level, n in zip(levels, counts, strict=True))
        if len(levels) > _SHOWN_LEVELS:
            text = f"{len(levels):,} levels from {levels[0]:.3g} to {levels[-1]:.3g}, median {np.median(noisy):.3g}"
        factor, words = told_in(self.values)
        unit = "" if self.values is None else f" (units of [-1, 1]; 1 is {factor:.6g} in {words})"
        return f"{len(noisy):,} of {len(self):,} images came with noise: {text}{unit}"

    def subset(self, index: np.ndarray | slice) -> ImageSet:
        """The images at `index` (whole numbers, a mask or a slice), with their ids."""
        return replace(
            self,
            images=self.images[index],
            labels=None if self.labels is None else self.labels[index],
            ids=self.ids[index],
            sigma_n=None if self.sigma_n is None else self.sigma_n[index],
            pattern=None if self.pattern is None else self.pattern[index],
        )


def to_pixels(images: np.ndarray) -> np.ndarray:
    """float32 in units of [-1, 1]: uint8/127.5 - 1; floats are in these units already and are copied."""
    if images.dtype != np.uint8:
        return images.astype(np.float32)
    out = images.astype(np.float32)
    out /= np.float32(127.5)
    out -= np.float32(1)
    return out


def to_uint8(images: npt.ArrayLike | torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float images in [-1, 1] -> uint8: `round(clip(127.5 x + 127.5, 0, 255))`; uint8 passes through.

    Values outside [-1, 1] are clipped. Raises DataError on NaN or infinity: a diverged model has no score.
    """
    if hasattr(images, "detach"):  # a tensor; torch is not imported for those who have none
        images = images.detach().to("cpu")
        images = images.float().numpy() if images.is_floating_point() else images.numpy()
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(f"images must be uint8, or floats in [-1, 1], not {array.dtype}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        raise DataError(f"{bad} of {len(array)} images hold NaN or infinity: the model that made them has diverged")
    return np.rint(np.clip(array * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def to_own(pixels: np.ndarray, values: ValueMap | None) -> np.ndarray:
    """Pixels as the numbers of the files they are of: those of the map, uint8 without one."""
    return to_uint8(pixels) if values is None else values.to_own(pixels)


def save_grid(images: np.ndarray, path: Path, columns: int | None = None, scale: int | None = None) -> None:
    """Images uint8 [n, C, H, W] as one PNG grid; small ones are enlarged by whole factors to about 48 pixels.

    Of two channels, real and imaginary part, the magnitude is shown.
    """
    if images.shape[1] == 2:
        parts = images.astype(np.float64) - 127.5
        images = np.minimum(2 * np.hypot(parts[:, :1], parts[:, 1:]), 255).astype(np.uint8)
    n, c, h, w = images.shape
    columns = columns or max(1, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    scale = scale or max(1, 48 // h)
    canvas = np.full((rows * (h * scale + 2) + 2, columns * (w * scale + 2) + 2, c), 255, np.uint8)
    for k, image in enumerate(images):
        y, x = 2 + (k // columns) * (h * scale + 2), 2 + (k % columns) * (w * scale + 2)
        canvas[y : y + h * scale, x : x + w * scale] = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas[:, :, 0] if c == 1 else canvas).save(path)
