"""What images can be read from: one reader a file, its description the first line of that file.

`open_source` asks the readers in turn; the help of the commands, the error for a file of unknown kind and the table in
docs/data.md are made from the same list, so a new reader touches its own file and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ambient_theory.shared.errors import DataError, one_sentence
from ambient_theory.shared.registry import Registry
from ambient_train.data.builtin import BUILT_IN
from ambient_train.data.place import is_there, place
from ambient_train.data.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from ambient_train.data.formats.frames import Format
    from ambient_train.data.readers._aside import Entries


@dataclass(frozen=True)
class Reader:
    """recognises(spec): whether the reader is meant, from the name and a look at the file; it decodes nothing.
    open(spec): the source; raises DataError for what cannot be read, UsageError for a spec that makes no sense.
    by_name: takes a word that need not be a path, and is asked before the others. general: takes what no other reader
    wants, and is asked last. format: for files of numbers, which may also lie in folders; see `formats.frames`.
    entries(path, where): of databases of encoded images, in this process; see `readers._aside`.
    """

    recognises: Callable[[str], bool]
    open: Callable[[str], Source]
    by_name: bool = False
    general: bool = False
    format: Format | None = None
    entries: Callable[[Path, str], Entries] | None = None


READERS: Registry[Reader] = Registry(__name__, "kind of source")


def open_source(spec: str) -> Source:
    """The source that a built-in name or a path names, not decoded yet. Raises DataError or UsageError."""
    spec = str(spec)
    readers = [READERS[name] for name in READERS]
    for reader in (r for r in readers if r.by_name):
        if reader.recognises(spec):
            return _settled(reader.open(spec))
    if not is_there(spec):
        raise DataError(f"{spec}: neither a file or directory nor a built-in set ({', '.join(BUILT_IN)})")
    path = place(spec).path
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{spec}: neither a file nor a directory (a pipe or a device cannot be read twice)")
    for reader in sorted((r for r in readers if not r.by_name), key=lambda r: r.general):
        if reader.recognises(spec):
            return _settled(reader.open(spec))
    raise DataError(f"{spec}: a file of unknown kind; allowed are: {source_help()}")


def _settled(source: Source) -> Source:
    from ambient_train.data.formats.classes import settled

    source = settled(source)
    return replace(source, notes=tuple(one_sentence(note) for note in source.notes))


def source_help() -> str:
    """What can be read, in one line, for help and messages."""
    kinds = dict(READERS.descriptions)
    kinds["built-in"] += f" ({', '.join(BUILT_IN)})"
    return "; ".join(kinds.values())


def source_table() -> str:
    """What can be read, as a Markdown table for the documentation."""
    rows = [("`--data`, SOURCE", "what is read"), ("---", "---")]
    rows += [(name, text) for name, text in READERS.descriptions.items()]
    rows += [(f"`{name}`", text) for name, text in BUILT_IN.descriptions.items()]
    return "".join(f"| {left} | {right} |\n" for left, right in rows)
