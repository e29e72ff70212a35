"""Damage to binary files that knows their format: sizes, offsets, counts, types, chunks, operations."""

from __future__ import annotations

import pickletools
import re
import struct
import zlib
from dataclasses import dataclass

from blind import Generator, blind, pick, whole
from text_mutations import WORDS, json_node, words


@dataclass(frozen=True)
class Field:
    """A whole number in a file, of 1, 2, 4 or 8 bytes."""

    at: int
    size: int
    big: bool = False


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
    field = inside[pick(generator, inside)]
    out = bytearray(data)
    order = "big" if field.big else "little"
    old = int.from_bytes(data[field.at : field.at + field.size], order)  # type: ignore[arg-type]
    if generator.random() < 0.2:
        alike = [f for f in inside if f.size == field.size]
        other = alike[pick(generator, alike)]
        new = data[other.at : other.at + other.size]
    else:
        new = whole(generator, field.size, field.big, old, len(data))
    out[field.at : field.at + field.size] = new
    return bytes(out), f"field {field.at}:{field.size}"


# --------------------------------------------------------------------------------------------------------- headers


def fits_cards(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One card of a header (80 characters): its value, its keyword, gone, doubled, or put where another is."""
    cards = [at for at in range(0, len(data) - 79, 80) if re.match(rb"[A-Z0-9_-]{1,8} *(= |$)", data[at : at + 80])]
    cards = cards or [0]
    at, other = (cards[pick(generator, cards)] for _ in range(2))
    card = data[at : at + 80]
    way = ("value", "value", "value", "keyword", "delete", "double", "move", "blank")[generator.integers(8)]
    if way == "value":
        word = WORDS[pick(generator, WORDS)]
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


def npy_header(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """A word of the header of a .npy, its length kept or not."""
    start, end = 10, 10 + _unpacked(data, 8, "<H")
    text, how = words(data[start:end], generator)
    if generator.random() < 0.7:  # as long as before: only what it says has changed
        text = text.rstrip(b"\n ").ljust(end - start - 1)[: end - start - 1] + b"\n"
    return data[:start] + text + data[end:], how


def safetensors_header(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """A value of the JSON header of a .safetensors file, its length made to fit or not."""
    length = _unpacked(data, 0, "<Q")
    head, how = json_node(data[8 : 8 + length], generator)
    said = len(head) if generator.random() < 0.8 else length
    return struct.pack("<Q", said) + head + data[8 + length :], f"header {how}"


_OPERATIONS = (
    b"(",
    b".",
    b"0",
    b"1",
    b"2",
    b"N",
    b"]",
    b"}",
    b")",
    b"l",
    b"d",
    b"t",
    b"a",
    b"s",
    b"u",
    b"e",
    b"b",
    b"R",
)
_OPERATIONS += (
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x88",
    b"\x8f",
    b"\x90",
    b"\x93",
    b"\x94",
    b"Q",
    b"o",
    b"o)R",
    b"h\x00",
)
_OPERATIONS += (
    b"j\xff\xff\xff\x7f",
    b"cos\nsystem\n",
    b"I9999999999999999999999\n",
    b"L" + b"9" * 400 + b"L\n",
    b"F1e999\n",
)
_OPERATIONS += (b"K\x00", b"J\xff\xff\xff\xff", b"M\xff\xff", b"X\x01\x00\x00\x00a", b"U\x01a", b"C\x01a", b"\x8a\x00")
_OPERATIONS += (b"X\xff\xff\xff\xff", b"T\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"\x8a\x09" + b"\xff" * 8 + b"\x7f")
_OPERATIONS += (
    b"B\xff\xff\xff\x7f",
    b"\x95" + b"\xff" * 8,
    b"Ix\n",
    b"S'a'\n",
    b"Sa\n",
    b"V\\ud800\n",
    b"Fnan\n",
    b"G\x7f\xf0" + bytes(6),
)


def pickle_operations(data: bytes, generator: Generator) -> tuple[bytes, str]:
    """One operation of the first pickle of a file: another one or argument, gone, twice, or one more before it."""
    places = [at for _, _, at in pickletools.genops(data) if at is not None]
    k = pick(generator, places)
    start, end = places[k], places[k + 1] if k + 1 < len(places) else len(data)
    other = pick(generator, places)
    second = data[places[other] : places[other + 1] if other + 1 < len(places) else len(data)]
    way = ("insert", "insert", "other", "other", "delete", "double", "copy", "argument", "argument")
    chosen = way[pick(generator, way)]
    new = {
        "insert": _OPERATIONS[pick(generator, _OPERATIONS)] + data[start:end],
        "other": _OPERATIONS[pick(generator, _OPERATIONS)],
        "delete": b"",
        "double": 2 * data[start:end],
        "copy": second,
        "argument": data[start : start + 1] + blind(data[start + 1 : end], generator)[0],
    }[chosen]
    return data[:start] + new + data[end:], f"{chosen} operation {k}"


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
        k = pick(generator, parts)
        kind, body = parts[k]
        way = generator.integers(5)
        if way == 0:
            del parts[k]
        elif way == 1:
            parts.insert(k, parts[pick(generator, parts)])
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
