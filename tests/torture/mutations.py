"""Damage to files: blind (bits, cuts, insertions) and aware of the format (sizes, offsets, counts, types, names).

`mutate` draws everything from the generator that it is given: the same generator gives the same damage.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Generator = np.random.Generator


@dataclass(frozen=True)
class Field:
    """A whole number in a file, of 1, 2, 4 or 8 bytes."""

    at: int
    size: int
    big: bool = False


_NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 63, 64, 127, 128, 255, 256, 1000, 2**15, 2**16 - 1, 2**16, 2**20)
_NUMBERS += (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 2, 2**64 - 1)
_WORDS = (b"0", b"1", b"2", b"3", b"-1", b"7", b"8", b"-8", b"16", b"-32", b"64", b"-64", b"999", b"65536")
_WORDS += (b"100000", b"4294967296", b"2147483647", b"-2147483648", b"9223372036854775808", b"99999999999999999999")
_WORDS += (b"1e400", b"-1e400", b"1e30", b"1e-320", b"nan", b"NaN", b"inf", b"-inf", b"0,5", b"1.5", b"''", b'"', b"")
_WORDS += (b"T", b"F", b"None", b"()", b"(0,)", b"<u2", b">f4", b"|O", b"<U4", b"|V8", b"<c8", b"<f2", b"\xff\xfe")
_WORDS += (b"../a", b"/etc/passwd", b"a/b", b"d.tif/0000", b"\0", b"\x1b[2J", b"\r", b"\n", b"=1", b"\xc3\xa9", b"%s")


def _pick(generator: Generator, values: object) -> int:
    return int(generator.integers(len(values)))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- blind


def blind(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One edit that knows nothing of the format."""
    way = ("bit", "bit", "byte", "word", "cut", "insert", "delete", "repeat", "swap", "zeros")[generator.integers(10)]
    at, length = _place(data, generator), int(generator.integers(1, 64))
    out = bytearray(data)
    if way == "bit" and out:
        out[at] ^= 1 << int(generator.integers(8))
    elif way == "byte" and out:
        out[at] = int(generator.integers(256))
    elif way == "word":
        size = int(2 ** generator.integers(4))
        out[at : at + size] = _whole(generator, size, bool(generator.integers(2)), 0, len(data))
    elif way == "cut":
        del out[at:]
    elif way == "insert":
        out[at:at] = generator.integers(0, 256, length).astype(np.uint8).tobytes()
    elif way == "delete":
        del out[at : at + length]
    elif way == "repeat":
        out[at:at] = out[at : at + length]
    elif way == "swap":
        other = _place(data, generator)
        out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
    else:
        out[at : at + length] = bytes(len(out[at : at + length]))
    return bytes(out), way


def _place(data: bytes, generator: Generator) -> int:
    """Anywhere, or with one half near the beginning, where headers are."""
    top = max(1, min(len(data), 512) if generator.random() < 0.5 else len(data))
    return int(generator.integers(top))


def _whole(generator: Generator, size: int, big: bool, old: int, length: int) -> bytes:
    near = (old + 1, old - 1, old * 2, old // 2, old << 8, old ^ (1 << int(generator.integers(8 * size))), -old)
    beyond = (length, length - 1, length + 1, length // 2, int(generator.integers(max(length, 1))))
    chosen = (_NUMBERS, near, beyond)[generator.integers(3)]
    return (chosen[_pick(generator, chosen)] % 2 ** (8 * size)).to_bytes(size, "big" if big else "little")


# -------------------------------------------------------------------------------------------------------- whole numbers


def tiff_fields(data: bytes) -> list[Field]:
    """Head, and count, tag, type, number and value of the entries of every directory (TIFF 6.0, BigTIFF)."""
    big = data[:2] == b"MM"
    order = ">" if big else "<"
    wide = data[2:4] in (b"+\0", b"\0+")
    count, entry, word = ("Q", 20, 8) if wide else ("H", 12, 4)
    start = 8 if wide else 4
    fields = [Field(2, 2, big), Field(start, word, big)]
    met: set[int] = set()
    at = _unpacked(data, start, order + ("Q" if wide else "I"))
    while at and at not in met and at + struct.calcsize(count) < len(data):
        met.add(at)
        fields.append(Field(at, struct.calcsize(count), big))
        number = _unpacked(data, at, order + count)
        first = at + struct.calcsize(count)
        for k in range(min(number, 64)):
            place = first + k * entry
            fields += [Field(place, 2, big), Field(place + 2, 2, big), Field(place + 4, word, big)]
            fields += [Field(place + 4 + word, 2, big), Field(place + 4 + word, word, big)]
            kind, values = _unpacked(data, place + 2, order + "H"), _unpacked(data, place + 4, order + "I")
            outside = _unpacked(data, place + 4 + word, order + "I")
            if kind == 4 and 1 < values < 64:  # offsets and byte counts that do not fit
                fields += [Field(outside + 4 * i, 4, big) for i in range(values)]
        at = _unpacked(data, first + number * entry, order + ("Q" if wide else "I"))
        fields.append(Field(first + number * entry, word, big))
    return fields


def _unpacked(data: bytes, at: int, code: str) -> int:
    size = struct.calcsize(code)
    return struct.unpack(code, data[at : at + size])[0] if 0 <= at <= len(data) - size else 0


def nifti_fields(data: bytes) -> list[Field]:
    """Sizes, types, dimensions, offset, scaling, codes and extension (NIfTI-1 and -2 headers)."""
    if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        big = data[:1] == b"\0"
        places = [(0, 4), (4, 4), (8, 4), (12, 2), (14, 2), (168, 8), (176, 8), (184, 8), (344, 4), (348, 4), (500, 4)]
        places += [(16 + 8 * k, 8) for k in range(8)] + [(104 + 8 * k, 8) for k in range(8)] + [(540, 4), (544, 4)]
    else:
        big = data[:1] == b"\0"
        places = [(0, 4), (39, 1), (68, 2), (70, 2), (72, 2), (74, 2), (108, 4), (112, 4), (116, 4), (120, 2), (123, 1)]
        places += [(40 + 2 * k, 2) for k in range(8)] + [(76 + 4 * k, 4) for k in range(8)]
        places += [(252, 2), (254, 2), (344, 4), (348, 4), (352, 4), (356, 4)]
    return [Field(at, size, big) for at, size in places]


_SIGNS = re.compile(rb"TREE|HEAP|SNOD|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTIN|BTLF|FADB|FAHD|EAHD|EAIB|EADB|GCOL|FSHD|FSSE")


def hdf5_fields(data: bytes) -> list[Field]:
    """The superblock; what follows a signature; and every word that could be an address, a size or a message's head."""
    fields = [Field(at, 1) for at in range(8, 24)] + [Field(at, 8) for at in range(24, 96, 8)]
    for found in _SIGNS.finditer(data):
        fields += [Field(found.end() + k, 1) for k in range(4)] + [Field(found.end() + 4 + 8 * k, 8) for k in range(8)]
    for at in range(0, len(data) - 8, 8):
        value = int.from_bytes(data[at : at + 8], "little")
        if 0 < value <= 2 * len(data) or value == 2**64 - 1:
            fields += [Field(at, 8), Field(at, 2)]
        elif value & 0xFFFF < 32 and 0 < (value >> 16) & 0xFFFF < 512:  # a message of a header: type, size, flags
            fields += [Field(at, 2), Field(at + 2, 2), Field(at + 4, 1), Field(at + 8, 1), Field(at + 9, 1)]
            fields += [Field(at + 8 + 4 * k, 4) for k in range(6)]
    return fields


def png_fields(data: bytes) -> list[Field]:
    """Lengths of the chunks, and the sizes, depth, colours and methods of the header."""
    fields = [Field(16, 4, True), Field(20, 4, True), *(Field(24 + k, 1) for k in range(5))]
    at = 8
    while at + 12 <= len(data):
        fields.append(Field(at, 4, True))
        at += 12 + _unpacked(data, at, ">I")
    return fields


_NARROW = {
    b"PK\1\2": (4, 6, 8, 10, 28, 30, 32, 34, 36, 38),
    b"PK\3\4": (4, 6, 8, 26, 28),
    b"PK\5\6": (4, 6, 8, 10, 20),
}
_WIDE = {b"PK\1\2": (16, 20, 24, 42), b"PK\3\4": (14, 18, 22), b"PK\5\6": (12, 16)}


def zip_fields(data: bytes) -> list[Field]:
    """Versions, flags, methods, checksums, sizes, lengths and offsets of local heads, directory and its end."""
    fields = []
    for sign in _NARROW:
        for found in re.finditer(re.escape(sign), data):
            fields += [Field(found.start() + k, 2) for k in _NARROW[sign]]
            fields += [Field(found.start() + k, 4) for k in _WIDE[sign]]
    return fields


def write_field(data: bytes, fields: list[Field], generator: Generator) -> tuple[bytes, str]:
    """Another number, or that of another field, in one of the fields."""
    inside = [f for f in fields if f.at >= 0 and f.at + f.size <= len(data)]
    if not inside:
        return blind(data, generator)
    field = inside[_pick(generator, inside)]
    out = bytearray(data)
    order = "big" if field.big else "little"
    old = int.from_bytes(data[field.at : field.at + field.size], order)  # type: ignore[arg-type]
    if generator.random() < 0.2:
        alike = [f for f in inside if f.size == field.size]
        other = alike[_pick(generator, alike)]
        new = data[other.at : other.at + other.size]
    else:
        new = _whole(generator, field.size, field.big, old, len(data))
    out[field.at : field.at + field.size] = new
    return bytes(out), f"field {field.at}:{field.size}"


# ---------------------------------------------------------------------------------------------------------------- text


def fits_cards(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One card of a header (80 characters): its value, its keyword, gone, doubled, or put where another is."""
    cards = [at for at in range(0, len(data) - 79, 80) if re.match(rb"[A-Z0-9_-]{1,8} *(= |$)", data[at : at + 80])]
    cards = cards or [0]
    at, other = (cards[_pick(generator, cards)] for _ in range(2))
    card = data[at : at + 80]
    way = ("value", "value", "value", "keyword", "delete", "double", "move", "blank")[generator.integers(8)]
    if way == "value":
        word = _WORDS[_pick(generator, _WORDS)]
        new = (card[:10] + (word.rjust(20) if generator.integers(2) else word))[:80].ljust(80)
        return data[:at] + new + data[at + 80 :], f"value {at}"
    if way == "keyword":
        return data[:at] + data[other : other + 8] + card[8:] + data[at + 80 :], f"keyword {at}"
    if way == "delete":
        end = data.find(b"END".ljust(80), at)
        end = end if end >= 0 else at + 80
        return data[:at] + data[at + 80 : end + 80] + b" " * 80 + data[end + 80 :], f"delete {at}"
    if way == "double":
        return data[:other] + card + data[other + 80 :], f"double {at}"
    if way == "move":
        return data[:at] + data[other : other + 80] + data[at + 80 : other] + card + data[other + 80 :], f"move {at}"
    return data[:at] + b" " * 80 + data[at + 80 :], f"blank {at}"


def words(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One word, number, mark or line of a text: another one, gone, or doubled."""
    found = list(re.finditer(rb"[\w.+|<>-]+|[(),;:'{}\[\]]", data))
    if not found:
        return blind(data, generator)
    match = found[_pick(generator, found)]
    way = ("other", "other", "other", "delete", "double", "line")[generator.integers(6)]
    new = {"delete": b"", "double": match[0] + b"," + match[0]}.get(way, _WORDS[_pick(generator, _WORDS)])
    if way == "line":
        lines = data.splitlines(keepends=True)
        k = _pick(generator, lines)
        lines[k] = (b"", lines[k] * 2, lines[k].strip() + b",9\n", b"\n", lines[0])[generator.integers(5)]
        return b"".join(lines), f"line {k}"
    return data[: match.start()] + new + data[match.end() :], f"{way} {match.start()}"


def npy_header(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """A word of the header of a .npy, its length kept or not."""
    start, end = 10, 10 + _unpacked(data, 8, "<H")
    text, how = words(data[start:end], generator)
    if generator.random() < 0.7:  # as long as before: only what it says has changed
        text = text.rstrip(b"\n ").ljust(end - start - 1)[: end - start - 1] + b"\n"
    return data[:start] + text + data[end:], how


# ------------------------------------------------------------------------------------------------------------ wrapped


def png_chunks(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """Damage below the checksums: a field or a chunk changes, then every checksum fits again."""
    if generator.random() < 0.5:
        data, how = write_field(data, png_fields(data)[:7], generator)
    else:
        how = "chunk"
    parts, at = [], 8
    while at + 12 <= len(data):
        size = min(_unpacked(data, at, ">I"), len(data) - at - 12)
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if how == "chunk" and parts:
        k = _pick(generator, parts)
        kind, body = parts[k]
        way = generator.integers(5)
        if way == 0:
            del parts[k]
        elif way == 1:
            parts.insert(k, parts[_pick(generator, parts)])
        elif way == 2:
            parts[k] = (kind, blind(body, generator)[0])
        elif way == 3:
            parts[k] = (blind(kind, generator)[0][:4].ljust(4), body)
        elif kind == b"IDAT":  # other rows, well packed
            rows, how = blind(_inflated(body), generator)
            parts[k] = (kind, zlib.compress(rows))
    out = data[:8]
    for kind, body in parts:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
    return out, f"png {how}"


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body)
    except zlib.error:
        return body


def gzip_inside(data: bytes, generator: Generator, inner: str) -> tuple[bytes, str]:
    """Damage to what is packed, packed again."""
    changed, how = once(gzip.decompress(data), inner, generator)
    return gzip.compress(changed, 1), f"packed {how}"


def zip_inside(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """Damage to one member, or another name for it, in a zip made anew."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
    k = _pick(generator, members)
    name, content, method = members[k]
    if generator.random() < 0.15:
        other = (b"../x.tif", b"/x.tif", b"x", b"b.tif", b"C:\\x.tif", b"\xff.tif", b"d/", b"a\nb.tif")
        name, how = other[_pick(generator, other)].decode("latin-1"), "name"
    else:
        content, how = once(content, name, generator)
    members[k] = (name, content, method)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, content, method in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    return buffer.getvalue(), f"member {k} {how}"


# ----------------------------------------------------------------------------------------------------------- together


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
    if name.endswith((".zip", ".npz")):
        return lambda data, generator: (
            write_field(data, zip_fields(data), generator) if generator.random() < 0.4 else zip_inside(data, generator)
        )
    return {".npy": npy_header, ".csv": words}.get(name[-4:])


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
