""".npy of images."""

from __future__ import annotations

from ambient_train.data.formats.arrays import as_labels, as_sigma, load_npy
from ambient_train.data.formats.mapped import in_pixels, mapped_images, notes_on_floats
from ambient_train.data.place import place
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name


def _open(spec: str) -> Source:
    """A .npy of images; `<stem>.labels.npy` and `<stem>.sigma.npy` beside it are used if they are there."""
    asked = place(spec)
    path = asked.path
    images, values, notes = mapped_images(load_npy(path), str(path), asked.range, "npy")
    count = len(images)
    label_file, sigma_file = path.with_suffix(".labels.npy"), path.with_suffix(".sigma.npy")
    sigma = as_sigma(load_npy(sigma_file), count, str(sigma_file)) if sigma_file.is_file() else None
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=as_labels(load_npy(label_file), count, str(label_file)) if label_file.is_file() else None,
        sigma_n=in_pixels(sigma, values),
        notes=(*notes, *notes_on_floats(images, sigma, values)),
        values=values,
    )


MEMBER = Reader(lambda spec: place(spec).path.name.lower().endswith(".npy"), _open)
