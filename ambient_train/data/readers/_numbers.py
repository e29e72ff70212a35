"""Sources of files of numbers, one file or a folder of them: what their readers share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.npy import load_npy
from ambient_train.data.formats.arrays import as_labels
from ambient_train.data.formats.frames import Format, FrameTree, frame_tree
from ambient_train.data.formats.metadata import Known
from ambient_train.data.formats.noise_arrays import StatedNoise, noise_beside
from ambient_train.data.formats.passed_over import suffix
from ambient_train.data.formats.stacks import stacked_reader
from ambient_train.data.formats.trees import Tree
from ambient_train.data.place import Place, place
from ambient_train.data.readers import READERS
from ambient_train.data.source import Source, source_name

_MANY_FILES = 20


def formats() -> dict[str, tuple[str, Format]]:
    """Ending -> name and format of the reader of such files."""
    members = ((name, READERS[name].format) for name in READERS)
    return {ending: (name, form) for name, form in members if form is not None for ending in form.suffixes}


def is_one(spec: str, form: Format) -> bool:
    """Whether the spec names a file with one of the format's endings."""
    path = place(spec).path
    return suffix(path.name) in form.suffixes and not path.is_dir()


def file_source(spec: str) -> Source:
    """The images of one file; `<stem>.sigma.npy`, `<stem>.spectrum.npy` and `<stem>.labels.npy` beside it are used.

    Raises DataError for what cannot be read, UsageError without the package that reads it.
    """
    asked = place(spec)
    path = asked.path
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    known = formats()[suffix(path.name)]
    alone = Tree(str(path), ("",), (), {"": size}, lambda name: path.read_bytes(), folder=False)
    tree = frame_tree(alone, {"": known}, asked, str(path))
    count, stem = len(tree.images), path.name[: len(path.name) - len(suffix(path.name))]
    label_file = path.with_name(f"{stem}.labels.npy")
    labels = as_labels(load_npy(label_file), count, str(label_file)) if label_file.is_file() else tree.labels
    shape = (count, *tree.frames("").shape)
    noise, said = noise_beside(path, stem, shape, tree.noise)
    return _source(asked, tree, Known(labels, noise.sigma, notes=said), noise)


def folder_source(asked: Place, tree: FrameTree, known: Known) -> Source:
    """The images of the files of a folder or a zip, with what is known of them from tables beside them.

    The frames of one file are held out together where there are 20 files or more: neighbours in a stack are alike.
    """
    noise = StatedNoise(known.sigma_n)
    if known.sigma_n is None and tree.noise.sigma is not None:
        known, noise = replace(known, sigma_n=tree.noise.sigma), tree.noise
    elif known.sigma_n is not None and tree.noise.sigma is not None:
        known = replace(
            known, notes=(*known.notes, "noise levels inside the files are not used, those beside them are")
        )
    if known.labels is None and tree.labels is not None:
        known = replace(known, labels=tree.labels)
    files = [file for file, _ in tree.members]
    if known.group is None and known.heldout is None and len(files) > len(tree.files) >= _MANY_FILES:
        _, first, inverse = np.unique(files, return_index=True, return_inverse=True)
        note = "the images of one file are held out together"
        known = replace(known, group=first[inverse].astype(np.int64), notes=(*known.notes, note))
    return _source(asked, tree, known, noise)


def _source(asked: Place, tree: FrameTree, known: Known, noise: StatedNoise) -> Source:
    values = tree.values
    try:
        noise = noise.or_counts(values, len(tree.images), asked.counts is not None).in_pixels(values)
    except DataError as error:
        raise DataError(f"{asked}: {error}") from None
    if values is not None and values.counts is not None and noise.sigma is not None:
        tree = replace(tree, clean=noise.sigma == 0)
    return Source(
        name=source_name(asked.path),
        count=len(tree.images),
        read=stacked_reader(tree),
        labels=known.labels,
        sigma_n=noise.sigma,
        heldout=known.heldout,
        group=known.group,
        classes=known.classes,
        tree=tree,
        notes=(*tree.notes, *known.notes, *noise.notes()),
        values=values,
        pattern=noise.pattern,
        spectrum=noise.spectrum,
        question=known.question,
    )


def no_inside(inside: str, where: str) -> None:
    """Raise UsageError where a data set is asked for inside a file that has none."""
    if inside:
        raise UsageError(f"{where}:{inside}: such a file has no data sets inside; give its path alone")
