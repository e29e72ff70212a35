"""Uncompressed PNGs, written and read back without a library: the same bytes everywhere, and quick for small images.

Format: PNG specification, third edition (W3C 2025); zlib container with stored blocks only (RFC 1950, RFC 1951).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_STORED_MAX = 65535


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def encode_png(pixels: np.ndarray) -> bytes:
    """Uncompressed PNG of pixels uint8 [C, H, W] with C = 1 (grey) or 3 (RGB)."""
    channels, height, width = pixels.shape
    rows = np.zeros((height, 1 + channels * width), np.uint8)  # filter type 0, then the row
    rows[:, 1:] = pixels.transpose(1, 2, 0).reshape(height, -1)
    raw = rows.tobytes()
    blocks = [b"\x78\x01"]
    for start in range(0, len(raw), _STORED_MAX):
        part = raw[start : start + _STORED_MAX]
        last = start + _STORED_MAX >= len(raw)
        blocks.append(struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part)
    blocks.append(struct.pack(">I", zlib.adler32(raw)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(blocks)) + _END


def decode_png(data: bytes) -> np.ndarray | None:
    """Pixels [C, H, W] of a PNG of exactly IHDR, IDAT, IEND with intact checksums, 8-bit grey or RGB and unfiltered
    rows, stored without compression; None for every other file (a full decoder then takes over)."""
    if len(data) < 69 or data[:8] != SIGNATURE or data[8:16] != b"\0\0\0\x0dIHDR" or data[-12:] != _END:
        return None
    width, height, depth, kind, *rest = struct.unpack(">IIBBBBB", data[16:29])
    (size,) = struct.unpack(">I", data[33:37])
    channels = {0: 1, 2: 3}.get(kind, 0)
    length = height * (1 + channels * width)
    if depth != 8 or not channels or any(rest) or data[37:41] != b"IDAT" or 33 + 12 + size + 12 != len(data):
        return None
    if not length <= size <= length + 6 + 5 * (2 + length // 1024):  # neither compressed nor a bomb
        return None
    body = data[41 : 41 + size]
    if data[29:33] != struct.pack(">I", zlib.crc32(data[12:29])):
        return None
    if data[41 + size : 45 + size] != struct.pack(">I", zlib.crc32(body, zlib.crc32(b"IDAT"))):
        return None
    try:
        raw = zlib.decompress(body)
    except zlib.error:
        return None
    if len(raw) != length or length == 0:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1)
    if rows[:, 0].any():
        return None
    return np.ascontiguousarray(rows[:, 1:].reshape(height, width, channels).transpose(2, 0, 1))
