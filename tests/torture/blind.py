"""Damage that knows nothing of the format: bits, bytes, words, cuts, insertions."""

from __future__ import annotations

import numpy as np

Generator = np.random.Generator

_NUMBERS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 32, 63, 64, 127, 128, 255, 256, 1000, 2**15, 2**16 - 1, 2**16, 2**20)
_NUMBERS += (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 2, 2**64 - 1)


def pick(generator: Generator, values: object) -> int:
    """An index of a sequence."""
    return int(generator.integers(len(values)))  # type: ignore[arg-type]


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
        out[at : at + size] = whole(generator, size, bool(generator.integers(2)), 0, len(data))
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


def whole(generator: Generator, size: int, big: bool, old: int, length: int) -> bytes:
    """Another whole number of `size` bytes than `old`: a famous one, one near it or near the length of the file."""
    near = (old + 1, old - 1, old * 2, old // 2, old << 8, old ^ (1 << int(generator.integers(8 * size))), -old)
    beyond = (length, length - 1, length + 1, length // 2, int(generator.integers(max(length, 1))))
    chosen = (_NUMBERS, near, beyond)[generator.integers(3)]
    return (chosen[pick(generator, chosen)] % 2 ** (8 * size)).to_bytes(size, "big" if big else "little")
