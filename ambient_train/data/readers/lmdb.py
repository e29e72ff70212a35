"""LMDB folder of encoded images."""

from __future__ import annotations

import threading
from pathlib import Path

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.extras import bounded, import_extra
from ambient_train.data.formats.stacks import stacked_reader
from ambient_train.data.formats.trees import Tree
from ambient_train.data.readers import Reader
from ambient_train.data.readers._aside import Entries, entries_aside
from ambient_train.data.source import Source, source_name


def is_lmdb(path: Path) -> bool:
    """A folder that holds data.mdb, or a file named *.mdb or *.lmdb."""
    return (path / "data.mdb").is_file() or (path.is_file() and path.suffix.lower() in (".mdb", ".lmdb"))


def entries_of(path: Path, where: str) -> Entries:
    """The entries, by the package itself: it maps the file and believes it, so that a damaged one ends the process."""
    lmdb = import_extra("lmdb", "lmdb", f"{where}: reading LMDB")
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, meminit=False, max_readers=512
        )
        with environment.begin() as transaction:
            keys = tuple(bytes(key) for key in transaction.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise DataError(f"{where}: not a readable LMDB ({error})") from None

    def read(k: int) -> bytes:
        try:
            with environment.begin() as transaction:
                return bounded(transaction.get(keys[k]), f"{where}:{keys[k]!r}")
        except lmdb.Error as error:
            raise DataError(f"{where}:{keys[k]!r}: cannot be read ({error})") from None

    return Entries(keys, read, environment.close)


def lmdb_source(path: Path) -> Source:
    """An LMDB of encoded images (PNG, JPEG, WebP, ...), as LSUN is distributed: every value one image, sorted by key.

    There are no labels in it. Raises UsageError without the extra, DataError for a database that cannot be opened.
    """
    import_extra("lmdb", "lmdb", f"{path}: reading LMDB")
    found = entries_aside("lmdb", path, str(path))
    if not found.keys:
        raise DataError(f"{path}: an LMDB without entries")
    by_name = {key.decode("utf-8", "backslashreplace"): k for k, key in enumerate(found.keys)}
    if len(by_name) < len(found.keys):
        raise DataError(f"{path}: keys that cannot be told apart as text")
    lock = threading.Lock()  # the helper answers one question at a time

    def read(key: str) -> bytes:
        with lock:
            return found.read(by_name[key])

    names = tuple(sorted(by_name))
    tree = Tree(str(path), names, (), dict.fromkeys(names, 0), read, folder=False)
    return Source(name=source_name(path), count=len(names), read=stacked_reader(tree), tree=tree)


MEMBER = Reader(
    lambda spec: is_lmdb(Path(spec).expanduser()),
    lambda spec: lmdb_source(Path(spec).expanduser()),
    entries=entries_of,
)
