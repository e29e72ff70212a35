"""The PNG writer and its fast reader against Pillow; what the decoder refuses and what it converts."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from data_files import encode, png, rgb
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.decode import decode_image
from ambient_train.data.formats.png import decode_png, encode_png
from ambient_train.data.formats.png16 import decode_png16, encode_png16


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 64), (200, 300)])
def test_written_pngs_are_read_back_equal_by_pillow_and_by_the_fast_reader(channels: int, size: tuple) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (channels, *size)).astype(np.uint8)
    data = encode_png(pixels)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        array = np.array(image)
    np.testing.assert_array_equal(
        array if channels == 1 else array.transpose(2, 0, 1), pixels.squeeze(0) if channels == 1 else pixels
    )
    fast = decode_png(data)
    assert fast is not None
    np.testing.assert_array_equal(fast, pixels)


def test_fast_reader_leaves_other_pngs_to_pillow_and_the_result_is_the_same() -> None:
    pixels = rgb(1, 16)[0]
    for data in (png(pixels), png(pixels, optimize=True), png(pixels, compress_level=0)):
        fast = decode_png(data)
        assert fast is None or (fast == pixels).all()
        np.testing.assert_array_equal(decode_image(data, "x")[0], pixels)
    assert decode_png(png(pixels)) is None


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_fast_reader_never_accepts_a_damaged_file(place: int, flip: int) -> None:
    data = bytearray(encode_png(rgb(1, 16)[0]))
    data[place % len(data)] ^= flip
    assert decode_png(bytes(data)) is None


def _sixteen_bit_rgb() -> bytes:
    """A 2 x 2 RGB PNG of 16 bits, which Pillow would reduce to 8 bits without a word."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + struct.pack(">6H", *range(0, 60000, 10000)) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


_RNG = np.random.default_rng(1)
_PLAIN = Image.fromarray(_RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8))
_ALPHA = Image.fromarray(_RNG.integers(0, 256, (8, 8, 4)).astype(np.uint8))
_DEEP = Image.fromarray(_RNG.integers(0, 65536, (8, 8)).astype(np.uint16))
UNUSUAL = {
    "palette": encode(_PLAIN.convert("P")),
    "alpha": encode(_ALPHA),
    "grey alpha": encode(_ALPHA.convert("LA")),
    "CMYK": encode(_PLAIN.convert("CMYK"), "JPEG"),
    "16 bits": encode(_DEEP),
    "16 bits a channel": _sixteen_bit_rgb(),
    "1 bit": encode(_PLAIN.convert("1")),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_modes_are_refused_with_the_file_and_what_to_do_or_converted_and_counted(kind: str) -> None:
    with pytest.raises(DataError, match=r"^some/file\.png: .*ambient data prepare"):
        decode_image(UNUSUAL[kind], "some/file.png")
    for colour, channels in (("rgb", 3), ("grey", 1)):
        pixels, note = decode_image(UNUSUAL[kind], "x", colour)  # type: ignore[arg-type]
        assert pixels.shape[0] == channels
        assert pixels.dtype == np.uint8
        assert note is not None


def test_sixteen_bits_are_divided_by_257_and_alpha_is_laid_over_white() -> None:
    grey, _ = decode_image(UNUSUAL["16 bits"], "x", "grey")
    np.testing.assert_array_equal(grey[0], np.rint(np.asarray(_DEEP).astype(float) / 257))
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (decode_image(encode(clear), "x", "rgb")[0] == 255).all()
    opaque = Image.new("RGBA", (4, 4), (10, 20, 30, 255))
    assert (decode_image(encode(opaque), "x", "rgb")[0][:, 0, 0] == [10, 20, 30]).all()


@pytest.mark.parametrize("mode", ["grey", "rgb"])
def test_counts_of_12_bits_among_images_of_8_bits_never_become_a_few_grey_levels(mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (1 if mode == "grey" else 3, 8, 8)).astype(np.uint16)
    with pytest.raises(DataError, match=r"8 bits would leave 1[5-7] grey levels; keep such files in a folder without"):
        decode_image(encode_png16(values), "x", mode)  # type: ignore[arg-type]


def test_animations_are_refused_even_where_conversion_is_allowed() -> None:
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 100, 200)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for convert in (None, "rgb"):
        with pytest.raises(DataError, match="animated image of 3 frames"):
            decode_image(data, "x.gif", convert)  # type: ignore[arg-type]


def test_headers_that_promise_billions_of_pixels_are_refused_before_decoding() -> None:
    data = bytearray(png(rgb(1)[0]))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(DataError, match="pixels"):
        decode_image(bytes(data), "bomb.png")


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_small_files_of_huge_images_are_refused_by_their_ratio(mode: str) -> None:
    """121 million equal pixels in some 100 kB; the same count of bytes in a file of its own size is an image."""
    side, kind = 9000, {"L": np.uint8, "I;16": np.uint16}[mode]
    data = encode(Image.fromarray(np.zeros((side, side), kind)), "PNG")
    assert len(data) < 500_000
    with pytest.raises(DataError, match="bomb"):
        decode_image(data, "blank.png") if mode == "L" else decode_png16(data, "blank.png")
    smaller = encode(Image.fromarray(np.zeros((1000, 1000), np.uint8)), "PNG")
    assert decode_image(smaller, "small.png")[0].shape == (1, 1000, 1000)


def test_postscript_is_not_handed_to_an_interpreter() -> None:
    with pytest.raises(DataError, match="not an image that can be read"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "x.png")
