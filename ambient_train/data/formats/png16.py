"""PNGs of 16 bits a channel, read and written whole: Pillow reads colours of them through 8 bits.

Format: PNG specification, third edition (W3C 2025). A byte of a row depends on those to the left, above, and above to
the left; bytes of one anti-diagonal do not depend on each other, so rows are unfiltered diagonal by diagonal.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import MAX_PIXELS, check_expansion
from ambient_train.data.formats.png import SIGNATURE, chunk

_COLOURS = {0: 1, 2: 3}


def read_header(data: bytes, where: str) -> tuple[int, int, int]:
    """(C, H, W). Raises DataError for what is no PNG of 16 bits, grey or RGB, in order of rows."""
    if len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
        raise DataError(f"{where}: not a PNG")
    width, height, depth, kind, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 16:
        raise DataError(f"{where}: a PNG of {depth} bits a channel; put PNGs of 8 bits into a folder or a .zip")
    if kind not in _COLOURS:
        raise DataError(f"{where}: a PNG of 16 bits with an alpha channel; export it without")
    if interlaced:
        raise DataError(f"{where}: an interlaced PNG of 16 bits; export it without interlacing")
    if width * height > MAX_PIXELS or not width * height:
        raise DataError(f"{where}: {width} x {height} pixels cannot be used")
    return _COLOURS[kind], height, width


def _chunks(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        end = data[at + 8 + size : at + 12 + size]
        if len(end) < 4 or struct.unpack(">I", end)[0] != zlib.crc32(body, zlib.crc32(kind)):
            raise DataError(f"{where}: damaged or truncated image (checksum of {kind!r})")
        yield kind, body
        if kind == b"IEND":
            return
        at += 12 + size
    raise DataError(f"{where}: damaged or truncated image (no end)")


def decode_png16(data: bytes, where: str) -> np.ndarray:
    """Values uint16 [C, H, W]. Raises DataError naming `where` for damage."""
    channels, height, width = read_header(data, where)
    packed = b"".join(body for kind, body in _chunks(data, where) if kind == b"IDAT")
    length = height * (1 + 2 * channels * width)
    check_expansion(len(packed), length, where)
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(packed, length)
    except zlib.error as error:
        raise DataError(f"{where}: damaged image ({error})") from None
    if len(raw) != length:
        raise DataError(f"{where}: damaged or truncated image ({len(raw):,} of {length:,} bytes)")
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1)
    if rows[:, 0].max() > 4:
        raise DataError(f"{where}: damaged image (an unknown filter)")
    plain = _unfiltered(rows[:, 0], rows[:, 1:].reshape(height, width, 2 * channels))
    return np.ascontiguousarray(plain.view(">u2").transpose(2, 0, 1)).astype(np.uint16)


def _unfiltered(filters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Bytes [H, W, B] of filtered rows, filters [H] 0 to 4."""
    height, width, size = rows.shape
    if not filters.any():
        return np.ascontiguousarray(rows)
    out = np.zeros((height + 1, width + 1, size), np.int16)  # a row of zeros above, a column of them to the left
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, above, corner = out[y + 1, x], out[y, x + 1], out[y, x]
        kind = filters[y][:, None]
        guess = left + above - corner
        a, b, c = np.abs(guess - left), np.abs(guess - above), np.abs(guess - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        add = np.select([kind == 1, kind == 2, kind == 3, kind == 4], [left, above, (left + above) // 2, paeth], 0)
        out[y + 1, x + 1] = (rows[y, x] + add) & 255
    return np.ascontiguousarray(out[1:, 1:].astype(np.uint8))


def encode_png16(values: np.ndarray) -> bytes:
    """PNG of values uint16 [C, H, W] with C = 1 (grey) or 3 (RGB), compressed, rows unfiltered."""
    channels, height, width = values.shape
    rows = np.zeros((height, 1 + 2 * channels * width), np.uint8)
    big = np.ascontiguousarray(values.transpose(1, 2, 0)).astype(">u2")
    rows[:, 1:] = big.view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
