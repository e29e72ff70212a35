"""Trees of image files: a folder or a zip, with labels and noise levels from `dataset.json`, a CSV or sub-folders.

The layout of EDM and StyleGAN (Karras et al. 2019, 2022) is read as it is: `dataset.json` holds
{"labels": [["00000/img00000000.png", 6], ...]} or null.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import MAX_MEMBER_BYTES, check_expansion
from ambient_theory.shared.plain_text import printable_line
from ambient_train.data.formats.decode import EXTENSIONS, Colour, decode_image, is_colour
from ambient_train.data.formats.passed_over import suffix

_SMALL_FILE_BYTES = 16384


@dataclass(frozen=True, eq=False)
class Tree:
    """Files by relative POSIX name, sorted; `read(name)` gives the bytes of one. other: files that are no images.

    converted: what `decode` changed, by name, of the images decoded so far.
    """

    root: str
    images: tuple[str, ...]
    other: tuple[str, ...]
    sizes: dict[str, int] = field(repr=False)
    read: Callable[[str], bytes] = field(repr=False)
    folder: bool = True
    converted: dict[str, str] = field(default_factory=dict, repr=False)

    def where(self, name: str) -> str:
        """The file's name for messages: root/name in a folder, root:name in an archive."""
        return printable_line(f"{self.root}{'/' if self.folder else ':'}{name}")

    def fingerprint(self) -> str:
        """SHA-256 of names and sizes of images and metadata: whether a listing is still the same."""
        other = (name for name in self.other if name.endswith((".json", ".csv", ".txt", ".npy")))
        listing = "".join(f"{name}\0{self.sizes[name]}\n" for name in (*self.images, *other))
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def states_levels(self) -> bool:
        """Whether the files themselves say how noisy they are."""
        return False

    @property
    def in_turn(self) -> bool:
        """Whether several images lie in one file and there are several files, of which one is open at a time."""
        return False

    def flat_names(self) -> tuple[str, ...]:
        """Names of the images as folders and files; those of frames in one file have none of their own."""
        return self.images

    def colour(self, index: int) -> bool:
        """Whether image number `index` holds colour, from its header alone. Raises DataError for what is no image."""
        name = self.images[index]
        return is_colour(self.read(name), self.where(name))

    def decode(self, index: int, convert: Colour | None = None) -> tuple[np.ndarray, str | None]:
        """`decode_image` of image number `index`."""
        name = self.images[index]
        pixels, what = decode_image(self.read(name), self.where(name), convert)
        if what is not None:
            self.converted[name] = what
        return pixels, what


def decode_threads(tree: Tree | None, asked: int | None = None) -> int:
    """Threads worth using, `asked` where that is given: decoders release Python's lock, but for small files handing it
    over costs more than it gives, so one then. One for stacks, whatever is asked: several threads that stand in
    different files would open, and unpack, a file for nearly every image."""
    if tree is not None and tree.in_turn:
        return 1
    if asked is not None:
        return asked
    if tree is not None:
        sizes = [tree.sizes[name] for name in tree.images[:: max(1, len(tree.images) // 256)]]
        if 0 < sum(sizes) / len(sizes) < _SMALL_FILE_BYTES:
            return 1
    return min(8, os.cpu_count() or 1)


def _sort(
    path: Path, sizes: dict[str, int], read: Callable[[str], bytes], others_too: Mapping[str, str] | None
) -> Tree:
    names = sorted(name for name in sizes if not (name.startswith((".", "__MACOSX/")) or "/." in name))
    images = tuple(name for name in names if os.path.splitext(name)[1].lower() in EXTENSIONS)
    known = others_too or {}
    if not images and (kinds := Counter(known[kind] for name in names if (kind := suffix(name)) in known)):
        most = kinds.most_common(1)[0][0]
        images = tuple(name for name in names if known.get(suffix(name)) == most)
    if not images:
        raise DataError(f"{path}: no image files in it (looked for {', '.join(sorted({*EXTENSIONS, *known}))})")
    chosen = set(images)
    others = tuple(name for name in names if name not in chosen)
    return Tree(str(path), images, others, sizes, read, folder=path.is_dir())


def open_folder(path: Path, others_too: Mapping[str, str] | None = None) -> Tree:
    """List a folder, recursively, through links too (but not into a loop of them); hidden files are passed over."""

    root, sizes = str(path), dict[str, int]()
    todo: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    try:
        while todo:
            base, above = todo.pop()
            place = os.path.realpath(os.path.join(root, base))
            if place in above:
                raise DataError(f"{printable_line(os.path.join(root, base))}: a link back to a folder above it")
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir():
                        todo.append((f"{base}{entry.name}/", above | {place}))
                    elif entry.is_file():
                        sizes[base + entry.name] = entry.stat().st_size
                    elif entry.is_symlink():
                        sizes[base + entry.name] = 0  # to nothing: reading it says so
    except OSError as error:
        raise DataError(f"{printable_line(str(error.filename))}: cannot be read ({error.strerror})") from None

    def read(name: str) -> bytes:
        if sizes[name] > MAX_MEMBER_BYTES:
            raise DataError(f"{path / name}: {sizes[name]:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}")
        try:
            with open(os.path.join(root, name), "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise DataError(f"{path / name}: cannot be read ({error.strerror})") from None

    return _sort(path, sizes, read, others_too)


def open_zip(path: Path, others_too: Mapping[str, str] | None = None) -> Tree:
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
        name = info.filename.replace("\\", "/")  # as some tools on Windows write it
        if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
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

    return _sort(path, {name: info.file_size for name, info in members.items()}, read, others_too)


def open_tree(path: Path, others_too: Mapping[str, str] | None = None) -> Tree:
    """`open_folder` or `open_zip`. others_too: endings of files that count as images where there are no
    others, each with its kind; those of the commonest kind are taken."""
    return open_folder(path, others_too) if path.is_dir() else open_zip(path, others_too)
