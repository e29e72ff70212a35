"""hf:NAME, a data set of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError, first_line
from ambient_train.data.formats.extras import bounded, import_extra
from ambient_train.data.formats.stacks import stacked_reader
from ambient_train.data.formats.trees import Tree
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source


def hugging_face_source(spec: str) -> Source:
    """`hf:NAME` or `hf:NAME:CONFIG`: a data set of the Hugging Face hub with a column of images.

    `train` is the training part and `test` (else `validation`) the held-out part. Labels come from the first column of
    type ClassLabel. Code that comes with a data set is never run. Raises UsageError without the extra.
    """
    name, _, config = spec.removeprefix("hf:").partition(":")
    if not name:
        raise UsageError(f"{spec!r} names no data set; give hf:NAME, as in hf:cifar10")
    datasets = import_extra("datasets", "datasets", f"{spec}: reading Hugging Face data sets")
    guard = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}  # gone since 4.0
    try:
        parts = datasets.load_dataset(name, config or None, **guard)
    except Exception as error:  # the package raises what its back ends raise
        raise DataError(f"{spec}: cannot be loaded ({first_line(error, 200)})") from None
    held = next((part for part in ("test", "validation") if part in parts), None)
    order = ["train", held] if "train" in parts and held else ["train"] if "train" in parts else list(parts)[:1]
    features = parts[order[0]].features
    column = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise DataError(f"{spec}: no column of images among {', '.join(features)}")
    label = next((key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None)
    tables = [parts[part].cast_column(column, datasets.Image(decode=False)) for part in order]
    counts = [len(table) for table in tables]
    places = {f"{p}/{i:08d}": (t, i) for t, p, n in zip(tables, order, counts, strict=True) for i in range(n)}

    def read(key: str) -> bytes:
        table, row = places[key]
        cell = table[row][column]
        if cell.get("bytes") is None and cell.get("path"):
            try:
                return bounded(Path(cell["path"]).read_bytes(), f"{spec}:{key}")
            except OSError as error:
                raise DataError(f"{spec}:{key}: cannot be read ({error.strerror}: {cell['path']})") from None
        return bounded(cell.get("bytes"), f"{spec}:{key}")

    tree = Tree(spec, tuple(places), (), dict.fromkeys(places, 0), read, folder=False)
    labels, names = None, None
    if label is not None:
        labels = np.concatenate([np.asarray(table[label], dtype=np.int64) for table in tables])
        names = tuple(features[label].names)
    total = sum(counts)
    notes = []
    if unread := [key for key in features if key not in (column, label)]:
        notes.append(f"the columns {', '.join(unread[:6])} are not read: images are {column}, labels {label or 'none'}")
    if left := [part for part in parts if part not in order]:
        notes.append(f"the parts {', '.join(left[:6])} are not read: images are of {', '.join(order)}")
    return Source(
        name=name.split("/")[-1],
        count=total,
        read=stacked_reader(tree),
        labels=labels,
        heldout=np.arange(total) >= counts[0] if len(order) > 1 else None,
        classes=names,
        tree=tree,
        notes=tuple(notes),
    )


MEMBER = Reader(lambda spec: spec.partition(":")[0] == "hf", hugging_face_source, by_name=True)
