"""Sources that need an extra package, imported only here: LMDB (`lmdb`) and Hugging Face data sets (`datasets`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.readers.limits import MAX_MEMBER_BYTES
from ambient_train.data.readers.source import Source
from ambient_train.data.readers.stacks import stacked_reader
from ambient_train.data.readers.trees import Tree


def _import(module: str, extra: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{what} needs the package {module}: pip install 'ambient-worth[{extra}]'") from None


def is_lmdb(path: Path) -> bool:
    """A folder that holds data.mdb, or a file named *.mdb or *.lmdb."""
    return (path / "data.mdb").is_file() or (path.is_file() and path.suffix.lower() in (".mdb", ".lmdb"))


def lmdb_source(path: Path, name: str) -> Source:
    """An LMDB of encoded images (PNG, JPEG, WebP, ...), as LSUN is distributed: every value one image, sorted by key.

    There are no labels in it. Raises UsageError without the extra, DataError for a database that cannot be opened.
    """
    lmdb = _import("lmdb", "lmdb", f"{path}: reading LMDB")
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False, max_readers=512
        )
        with environment.begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)]
    except lmdb.Error as error:
        raise DataError(f"{path}: not a readable LMDB ({error})") from None
    if not keys:
        raise DataError(f"{path}: an LMDB without entries")
    by_name = {key.decode("utf-8", "backslashreplace"): key for key in keys}
    if len(by_name) < len(keys):
        raise DataError(f"{path}: keys that cannot be told apart as text")

    def read(key: str) -> bytes:
        try:
            with environment.begin() as transaction:
                value = transaction.get(by_name[key])
        except lmdb.Error as error:
            raise DataError(f"{path}:{key}: cannot be read ({error})") from None
        return _bounded(value, f"{path}:{key}")

    names = tuple(sorted(by_name))
    tree = Tree(str(path), names, (), dict.fromkeys(names, 0), read, folder=False)
    return Source(name=name, count=len(names), read=stacked_reader(tree), tree=tree)


def _bounded(value: Any, where: str) -> bytes:
    if not isinstance(value, bytes) or not value:
        raise DataError(f"{where}: holds no encoded image")
    if len(value) > MAX_MEMBER_BYTES:
        raise DataError(f"{where}: {len(value):,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
    return value


def hugging_face_source(spec: str) -> Source:
    """`hf:NAME` or `hf:NAME:CONFIG`: a data set of the Hugging Face hub with a column of images.

    `train` is the training part and `test` (else `validation`) the held-out part. Labels come from the first column of
    type ClassLabel. Code that comes with a data set is never run. Raises UsageError without the extra.
    """
    name, _, config = spec.removeprefix("hf:").partition(":")
    if not name:
        raise UsageError(f"{spec!r} names no data set; give hf:NAME, as in hf:cifar10")
    datasets = _import("datasets", "datasets", f"{spec}: reading Hugging Face data sets")
    guard = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}  # gone since 4.0
    try:
        parts = datasets.load_dataset(name, config or None, **guard)
    except Exception as error:  # the package raises what its back ends raise
        message = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{spec}: cannot be loaded ({message})") from None
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
                return _bounded(Path(cell["path"]).read_bytes(), f"{spec}:{key}")
            except OSError as error:
                raise DataError(f"{spec}:{key}: cannot be read ({error.strerror}: {cell['path']})") from None
        return _bounded(cell.get("bytes"), f"{spec}:{key}")

    tree = Tree(spec, tuple(places), (), dict.fromkeys(places, 0), read, folder=False)
    labels, names = None, None
    if label is not None:
        labels = np.concatenate([np.asarray(table[label], dtype=np.int64) for table in tables])
        names = tuple(features[label].names)
    total = sum(counts)
    return Source(
        name=name.split("/")[-1],
        count=total,
        read=stacked_reader(tree),
        labels=labels,
        heldout=np.arange(total) >= counts[0] if len(order) > 1 else None,
        label_names=names,
        tree=tree,
    )
