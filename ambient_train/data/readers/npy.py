""".npy of images."""

from __future__ import annotations

from pathlib import Path

from ambient_train.data.formats.arrays import as_images, as_labels, as_sigma, float_notes, load_npy
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name


def _open(spec: str) -> Source:
    """A .npy of images; `<stem>.labels.npy` and `<stem>.sigma.npy` beside it are used if they are there."""
    path = Path(spec).expanduser()
    images = as_images(load_npy(path), str(path))
    count = len(images)
    label_file, sigma_file = path.with_suffix(".labels.npy"), path.with_suffix(".sigma.npy")
    sigma = as_sigma(load_npy(sigma_file), count, str(sigma_file)) if sigma_file.is_file() else None
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=as_labels(load_npy(label_file), count, str(label_file)) if label_file.is_file() else None,
        sigma_n=sigma,
        notes=float_notes(images, sigma),
    )


MEMBER = Reader(lambda spec: spec.lower().endswith(".npy"), _open)
