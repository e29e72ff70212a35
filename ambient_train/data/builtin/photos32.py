"""32 x 32 colour patches of scikit-learn's two sample photographs."""

from __future__ import annotations

import numpy as np

from ambient_theory.shared.errors import UsageError
from ambient_train.data.source import Source

PATCH = 32


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
        classes=("china", "flower"),
    )


MEMBER = photos32
