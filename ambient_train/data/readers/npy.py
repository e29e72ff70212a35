""".npy of images."""

from __future__ import annotations

from ambient_theory.shared.npy import load_npy
from ambient_train.data.formats.arrays import as_labels
from ambient_train.data.formats.mapped import clean_again, mapped_images, notes_on_floats
from ambient_train.data.formats.noise_arrays import StatedNoise, noise_beside
from ambient_train.data.formats.written_again import numbers_of, write_npy_again
from ambient_train.data.place import place
from ambient_train.data.readers import Reader
from ambient_train.data.source import ArrayFile, Source, source_name


def _open(spec: str) -> Source:
    """A .npy of images; `<stem>.labels.npy`, `<stem>.sigma.npy` and `<stem>.spectrum.npy` beside it are used if they
    are there."""
    asked = place(spec)
    path = asked.path
    array = load_npy(path)
    images, values, notes = mapped_images(array, str(path), asked, "npy")
    count = len(images)
    label_file = path.with_suffix(".labels.npy")
    noise, said = noise_beside(path, path.stem, images.shape, StatedNoise())
    noise = noise.or_counts(values, count, asked.counts is not None).in_pixels(values)
    images = clean_again(images, array, str(path), values, noise.sigma)
    numbers = numbers_of(array.dtype, values)
    return Source(
        name=source_name(path),
        count=count,
        read=lambda ids: images[ids],
        labels=as_labels(load_npy(label_file), count, str(label_file)) if label_file.is_file() else None,
        sigma_n=noise.sigma,
        notes=(*notes, *said, *noise.notes(), *notes_on_floats(images, noise, values, path)),
        values=values,
        pattern=noise.pattern,
        spectrum=noise.spectrum,
        file=ArrayFile(path.name, lambda new, restored: write_npy_again(new, array, restored, numbers)),
    )


MEMBER = Reader(lambda spec: place(spec).path.name.lower().endswith(".npy"), _open)
