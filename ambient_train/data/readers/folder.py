"""folder or .zip of image files."""

from __future__ import annotations

from pathlib import Path

from ambient_train.data.formats.metadata import describe_tree
from ambient_train.data.formats.stacks import stacked_reader
from ambient_train.data.formats.trees import open_tree
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source, source_name


def _recognises(spec: str) -> bool:
    path = Path(spec).expanduser()
    return path.is_dir() or path.name.lower().endswith(".zip")


def open_folder_or_zip(spec: str) -> Source:
    """Image files that already have one size and one colour mode, with what the tables beside them say."""
    path = Path(spec).expanduser()
    tree = open_tree(path)
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
    )


MEMBER = Reader(_recognises, open_folder_or_zip, general=True)
