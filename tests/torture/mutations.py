"""Damage to files: blind (`blind`), aware of the format (`text_mutations`, `binary_mutations`), within what is packed.

`mutate` draws everything from the generator that it is given: the same generator gives the same damage.
"""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable

from binary_mutations import (
    Field,
    fits_cards,
    hdf5_fields,
    nifti_fields,
    npy_header,
    pickle_operations,
    png_chunks,
    safetensors_header,
    tiff_fields,
    write_field,
    zip_fields,
)
from blind import Generator, blind, pick
from text_mutations import json_lines, json_node, toml_line, words

_SHARE_OF_BOMBS, _EXPANDED = 0.01, 300 * 2**20


def gzip_inside(data: bytes, generator: Generator, inner: str) -> tuple[bytes, str]:
    """Damage to what is packed, packed again; now and then a bomb."""
    if generator.random() < _SHARE_OF_BOMBS:
        return _bomb(), "bomb"
    changed, how = once(gzip.decompress(data), inner, generator)
    return gzip.compress(changed, 1, mtime=0), f"packed {how}"


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(bytes(_EXPANDED), 1, mtime=0)


def zip_inside(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """Damage to one member, or another name for it, in a zip made anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    k = pick(generator, members)
    name, content, method = members[k]
    if generator.random() < 0.15:
        other = (b"../x.tif", b"/x.tif", b"x", b"b.tif", b"C:\\x.tif", b"\xff.tif", b"d/", b"a\nb.tif")
        name, how = other[pick(generator, other)].decode("latin-1"), "name"
    else:
        content, how = once(content, name, generator)
    if generator.random() < _SHARE_OF_BOMBS:
        content, method, how = bytes(_EXPANDED), zipfile.ZIP_DEFLATED, "bomb"
    members[k] = (name, content, method)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content, method in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return buffer.getvalue(), f"member {k} {how}"


def tar_inside(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """Damage to one member of a tar, or to its name, kind or size."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive.getmembers()]  # type: ignore[union-attr]
    k = pick(generator, members)
    info, content = members[k]
    way = ("content",) * 7 + ("name", "kind", "size")
    chosen = how = way[pick(generator, way)]
    if chosen == "content":
        content, how = once(content, info.name, generator)
        info.size = len(content)
    elif chosen == "name":
        other = ("../x", "/x", "x", members[pick(generator, members)][0].name, "a\nb", "x" * 300, "d/")
        info.name = other[pick(generator, other)]
    elif chosen == "kind":
        info.type = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"9")[generator.integers(5)]
        info.linkname = "../x"
    else:
        info.size = (0, 1, len(content) - 1, len(content) + 600, 2**33, 2**60)[generator.integers(6)]
    members[k] = (info, content)
    out = b""
    for info, content in members:
        out += info.tobuf() + content + bytes(-len(content) % 512)
    return out + bytes(1024), f"member {k} {how}"


# ----------------------------------------------------------------------------------------------------------- together


_OF_TEXT = {
    ".npy": npy_header,
    ".json": json_node,
    ".jsonl": json_lines,
    ".toml": toml_line,
    **dict.fromkeys((".csv", ".tsv", ".txt", ".dat", ".md"), words),
}


def _aware(name: str) -> Callable[[bytes, Generator], tuple[bytes, str]] | None:
    """Damage that knows the format of the file, from the end of its name."""
    if name.endswith(".gz"):
        return lambda data, generator: gzip_inside(data, generator, name.removesuffix(".gz"))
    for endings, fields in (
        ((".tif", ".tiff"), tiff_fields),
        ((".nii",), nifti_fields),
        ((".h5",), hdf5_fields),
    ):
        if name.endswith(endings):
            return lambda data, generator, fields=fields: write_field(data, fields(data), generator)
    if name.endswith((".fits", ".fit")):
        return fits_cards
    if name.endswith(".png"):
        return png_chunks
    if name.endswith(".tar"):
        return tar_inside
    if name.endswith((".pkl", "_batch", *(f"data_batch_{k}" for k in range(1, 6)))):
        return pickle_operations
    if name.endswith(".safetensors"):
        return safetensors_header
    if name.endswith((".zip", ".npz")):
        return lambda data, generator: (
            write_field(data, zip_fields(data), generator) if generator.random() < 0.4 else zip_inside(data, generator)
        )
    if name.endswith(("idx3-ubyte", "idx1-ubyte")):
        fields = [Field(at, 1) for at in range(4)] + [Field(4 * k, 4, True) for k in range(1, 4)]
        return lambda data, generator: write_field(data, fields, generator)
    for ending, aware in _OF_TEXT.items():
        if name.endswith(ending):
            return aware
    return None


def once(data: bytes, name: str, generator: Generator) -> tuple[bytes, str]:
    """One edit, aware of the format in two of three cases; one of a damaged file may have to be blind."""
    aware = _aware(name)
    if aware is not None and generator.random() < 0.7:
        try:
            return aware(data, generator)
        except Exception:  # the edits before have damaged it too much to be understood
            return blind(data, generator)
    return blind(data, generator)


def mutate(data: bytes, name: str, generator: Generator) -> tuple[bytes, str]:
    """One edit to four of a file, fewer more often; and what they were."""
    said = []
    for _ in range(1 + int(generator.choice(4, p=(0.6, 0.2, 0.12, 0.08)))):
        data, how = once(data, name, generator)
        said.append(how)
    return data, ", ".join(said)
