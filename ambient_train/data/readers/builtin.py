"""The image sets that need no download: digits, photos32, and Fashion-MNIST where its files are installed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.readers.idx import idx_folder
from ambient_train.data.readers.source import Source

FASHION_DIRECTORY = "/usr/share/datasets/fashion-mnist"
FASHION_VARIABLE = "FASHION_MNIST_DIR"
FASHION_LABELS = (
    *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
PATCH = 32


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 1 x 8 x 8; grey levels 0..16 are rounded to uint8 value/16 * 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images / 16 * 255).astype(np.uint8)[:, None]
    return Source(
        name="digits",
        count=len(images),
        read=lambda ids: images[ids],
        labels=bunch.target.astype(np.int64),
        default_holdout=0.2,
        label_names=tuple(str(name) for name in bunch.target_names),
    )


def fashion() -> Source:
    """Fashion-MNIST (Xiao et al. 2017, MIT licence), 60,000 training and 10,000 held-out images, 1 x 28 x 28.

    Read from the directory that the environment variable FASHION_MNIST_DIR names, else from where Debian's package
    dataset-fashion-mnist puts it. Raises DataError, saying how to get it, where the files are missing.
    """
    directory = Path(os.environ.get(FASHION_VARIABLE) or FASHION_DIRECTORY)
    try:
        return replace(idx_folder(directory, name="fashion"), label_names=FASHION_LABELS)
    except DataError as error:
        raise DataError(
            f"fashion: {error}; install Debian's package dataset-fashion-mnist, or put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz into a directory "
            f"and set {FASHION_VARIABLE} to it"
        ) from None


def photos32(argument: str = "") -> Source:
    """32 x 32 colour patches of scikit-learn's two CC-BY sample photographs (china.jpg, flower.jpg).

    520 disjoint patches by default; `photos32:stride=4` takes one every 4 pixels (30,294). Patches at a stride below
    32 overlap, so they are not independent images and their held-out part is cut out by place: it holds the patches
    that lie wholly in the right-hand share of each photograph, training those wholly left of it, and patches across
    the border belong to neither.
    """
    stride = PATCH
    if argument:
        key, _, value = argument.partition("=")
        if key != "stride" or not value.isdecimal() or not 1 <= int(value) <= PATCH:
            raise UsageError(f"photos32:{argument}: the only option is stride=1 ... stride={PATCH}")
        stride = int(value)
    from sklearn.datasets import load_sample_image

    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    places = np.array(
        [
            (k, top, left)
            for k, photo in enumerate(photos)
            for top in range(0, photo.shape[0] - PATCH + 1, stride)
            for left in range(0, photo.shape[1] - PATCH + 1, stride)
        ]
    )
    widths = np.array([photo.shape[1] for photo in photos])[places[:, 0]]

    def read(ids: np.ndarray) -> np.ndarray:
        out = np.empty((len(ids), 3, PATCH, PATCH), np.uint8)
        for row, (k, top, left) in zip(out, places[ids], strict=True):
            row[:] = photos[k][top : top + PATCH, left : left + PATCH].transpose(2, 0, 1)
        return out

    def regions(share: float) -> tuple[np.ndarray, np.ndarray]:
        border = np.rint(widths * (1 - share))
        return places[:, 2] + PATCH <= border, places[:, 2] >= border

    return Source(
        name="photos32" if stride == PATCH else f"photos32-stride{stride}",
        count=len(places),
        read=read,
        labels=places[:, 0].astype(np.int64),
        regions=None if stride == PATCH else regions,
        label_names=("china", "flower"),
    )
