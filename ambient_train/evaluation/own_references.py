"""The references that a data set gives of itself: its held-out and its training images, those without noise."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from ambient_train.data.images import to_uint8
from ambient_train.data.load import ImageSet, load_images
from ambient_train.evaluation.references import Reference


@functools.lru_cache(maxsize=8)
def references(
    data: str, resolution: int | None, holdout: float | None, max_images: int | None
) -> dict[str, Reference]:
    """`heldout-clean` (images never trained on) and `train-clean` (clean originals of the training part).

    Images that came with noise are left out; a part with fewer than two clean images gives no reference.
    """
    out = {}
    parts: tuple[tuple[str, Literal["heldout", "train"]], ...] = (
        ("heldout-clean", "heldout"),
        ("train-clean", "train"),
    )
    for name, split in parts:
        if split == "heldout" and holdout == 0:
            continue
        images = load_images(
            data,
            split=split,
            holdout=holdout,
            resolution=resolution,
            max_images=max_images if split == "train" else None,
        )
        clean = clean_uint8(images)
        if len(clean) >= 2:
            out[name] = Reference(name, clean)
    return out


@functools.lru_cache(maxsize=8)
def heldout_images(data: str, resolution: int | None, holdout: float | None) -> ImageSet | None:
    """All held-out images, as they are in the data; None where nothing is held out."""
    if holdout == 0:
        return None
    return load_images(data, split="heldout", holdout=holdout, resolution=resolution)


def clean_part(images: ImageSet) -> ImageSet:
    """The images without noise of their own."""
    return images if images.sigma_n is None else images.subset(images.sigma_n == 0)


def noisy_part(images: ImageSet) -> ImageSet | None:
    """The images with noise of their own; None where there is none."""
    return None if images.sigma_n is None or not (images.sigma_n > 0).any() else images.subset(images.sigma_n > 0)


def clean_uint8(images: ImageSet) -> np.ndarray:
    """The images without noise of their own, as uint8."""
    keep = slice(None) if images.sigma_n is None else images.sigma_n == 0
    chosen = images.images[keep]
    return chosen if chosen.dtype == np.uint8 else to_uint8(chosen)
