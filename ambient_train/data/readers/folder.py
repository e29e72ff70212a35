"""folder or .zip of image files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import MAX_MEMBER_BYTES
from ambient_train.data.formats.decode import is_wide
from ambient_train.data.formats.frames import frame_tree
from ambient_train.data.formats.metadata import describe_tree
from ambient_train.data.formats.passed_over import suffix
from ambient_train.data.formats.stacks import stacked_reader
from ambient_train.data.formats.trees import Tree, open_tree
from ambient_train.data.place import place
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import folder_source, formats
from ambient_train.data.source import Source, source_name

_PROBES = 32


def _recognises(spec: str) -> bool:
    path = place(spec).path
    return path.is_dir() or path.name.lower().endswith(".zip")


def open_folder_or_zip(spec: str) -> Source:
    """Image files that already have one size and one colour mode, with what the tables beside them say.

    Files of numbers (TIFF and PNG beyond 8 bits, stacks, HDF5, FITS, NIfTI) are read by their own readers, where all of
    the images are such files.
    """
    asked = place(spec)
    path = asked.path
    known_kinds = formats()
    tree = open_tree(path, {ending: name for ending, (name, _) in known_kinds.items()})
    if _of_numbers(tree, known_kinds):
        of_each = {name: known_kinds[suffix(name)] for name in tree.images}
        frames = frame_tree(tree, of_each, asked, str(path))
        return folder_source(asked, frames, describe_tree(frames))
    if asked.inside or asked.mapped:
        raise UsageError(
            f"{spec}: images of 8 bits have their range, 0 to 255, and no data sets inside: give the path alone"
        )
    known = describe_tree(tree)
    return Source(
        name=source_name(path),
        count=len(tree.images),
        read=stacked_reader(tree),
        labels=known.labels,
        sigma_n=known.sigma_n,
        heldout=known.heldout,
        group=known.group,
        classes=known.classes,
        tree=tree,
        notes=known.notes,
        question=known.question,
    )


def _of_numbers(tree: Tree, kinds: Mapping[str, object]) -> bool:
    """Whether the images are files of numbers: all of 32 that are looked at, by their endings and headers."""
    if any(suffix(name) not in kinds for name in tree.images):
        return False
    index = np.unique(np.linspace(0, len(tree.images) - 1, _PROBES).astype(int))
    return all(_is_of_numbers(tree, tree.images[i]) for i in index)


def _is_of_numbers(tree: Tree, name: str) -> bool:
    if suffix(name) not in (".png", ".tif", ".tiff"):
        return True
    if tree.sizes[name] > MAX_MEMBER_BYTES:
        return suffix(name) != ".png"
    try:
        return is_wide(tree.read(name))
    except DataError:  # whoever decodes it says what is wrong
        return False


MEMBER = Reader(_recognises, open_folder_or_zip, general=True)
