"""Trees of image files: a folder or a zip, with labels and noise levels from `dataset.json`, a CSV or sub-folders.

The layout of EDM and StyleGAN (Karras et al. 2019, 2022) is read as it is: `dataset.json` holds
{"labels": [["00000/img00000000.png", 6], ...]} or null.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from ambient_theory.errors import DataError
from ambient_train.data.decode import EXTENSIONS, Colour, decode_image
from ambient_train.data.limits import MAX_MEMBER_BYTES, check_expansion


@dataclass(frozen=True, eq=False)
class Tree:
    """Files by relative POSIX name, sorted; `read(name)` gives the bytes of one. other: files that are no images."""

    root: str
    images: tuple[str, ...]
    other: tuple[str, ...]
    sizes: dict[str, int] = field(repr=False)
    read: Callable[[str], bytes] = field(repr=False)
    folder: bool = True

    def where(self, name: str) -> str:
        """The file's name for messages: root/name in a folder, root:name in an archive."""
        return printable(f"{self.root}{'/' if self.folder else ':'}{name}")

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes of all files: whether a listing is still the same."""
        listing = "".join(f"{name}\0{self.sizes[name]}\n" for name in (*self.images, *self.other))
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()

    def decode(self, index: int, convert: Colour | None = None) -> tuple[np.ndarray, str | None]:
        """`decode_image` of image number `index`."""
        name = self.images[index]
        return decode_image(self.read(name), self.where(name), convert)


def printable(text: str) -> str:
    """Text without control characters and undecodable bytes, which are escaped: names in archives can hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _sort(path: Path, sizes: dict[str, int], read: Callable[[str], bytes]) -> Tree:
    hidden = {name for name in sizes if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))}
    names = sorted(set(sizes) - hidden)
    images = tuple(name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS)
    if not images:
        raise DataError(f"{path}: no image files in it (looked for {', '.join(sorted(EXTENSIONS))})")
    chosen = set(images)
    others = tuple(name for name in names if name not in chosen)
    return Tree(str(path), images, others, sizes, read, folder=path.is_dir())


def open_folder(path: Path) -> Tree:
    """List a folder, recursively; hidden files and links to directories are passed over."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})")

    sizes: dict[str, int] = {}
    for directory, _, files in os.walk(path, onerror=fail):
        base = os.path.relpath(directory, path)
        for file in files:
            full = os.path.join(directory, file)
            if os.path.isfile(full):
                sizes[file if base == "." else f"{base.replace(os.sep, '/')}/{file}"] = os.path.getsize(full)

    def read(name: str) -> bytes:
        if sizes[name] > MAX_MEMBER_BYTES:
            raise DataError(f"{path / name}: {sizes[name]:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
        try:
            return (path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{path / name}: cannot be read ({error.strerror})") from None

    return _sort(path, sizes, read)


def open_zip(path: Path) -> Tree:
    """List a zip. Absolute names, names with `..`, encrypted and doubled entries are refused; nothing is unpacked."""
    try:
        archive = zipfile.ZipFile(path)
        infos = archive.infolist()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # a damaged directory of the archive may raise anything
        raise DataError(f"{path}: not a readable zip ({error})") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise DataError(f"{path}: the entry {name!r} points outside the archive")
        if name.endswith("/"):
            continue
        if not name:
            raise DataError(f"{path}: an entry without a name")
        if name in members:
            raise DataError(f"{path}: two entries named {name!r}")
        if info.flag_bits & 1:
            raise DataError(f"{path}: the entry {name!r} is encrypted")
        members[name] = info

    def read(name: str) -> bytes:
        info, where = members[name], f"{path}:{name}"
        if info.file_size > MAX_MEMBER_BYTES:
            raise DataError(f"{where}: {info.file_size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
        check_expansion(info.compress_size, info.file_size, where)
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, MemoryError) as error:
            raise DataError(f"{where}: damaged or truncated ({error})") from None
        except Exception as error:  # bz2 and lzma members have errors of their own
            raise DataError(f"{where}: cannot be read ({type(error).__name__}: {error})") from None

    return _sort(path, {name: info.file_size for name, info in members.items()}, read)


def open_tree(path: Path) -> Tree:
    """`open_folder` or `open_zip`."""
    return open_folder(path) if path.is_dir() else open_zip(path)
