"""One image file to pixels [C, H, W], uint8. Strict: what is not plain grey or RGB of 8 bits is refused or counted."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, _imaging

from ambient_theory.shared.errors import DataError, first_line
from ambient_theory.shared.limits import MAX_PIXELS, check_expansion
from ambient_train.data.formats.png import SIGNATURE, decode_png

warnings.filterwarnings("ignore", module=r"PIL\.")  # what it says of damaged files names none of them
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(OSError, AttributeError):  # libtiff itself says it on stderr, and its caller raises as well
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"))
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # nothing that starts a program, as EPS would
Colour = Literal["rgb", "grey"]
_SIXTEEN_BIT = frozenset(("I", "I;16", "I;16B", "I;16L", "I;16N"))
_SIXTEEN, _FEWEST_GREYS = "an image of 16 bits a channel", 64
_ORIENTATION = 0x0112
TURNED = "an image stored on its side or mirrored (EXIF), now upright"
OTHER_MODE: dict[Colour, str] = {"rgb": "a grey image", "grey": "a colour image"}
"""What a plain image is that conversion to a colour mode changes."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601), here and in Pillow."""
_AND = " and "
_WHAT = {
    "P": "a palette image",
    "PA": "a palette image with alpha",
    "RGBA": "an image with an alpha channel",
    "RGBa": "an image with an alpha channel",
    "LA": "a grey image with an alpha channel",
    "La": "a grey image with an alpha channel",
    "CMYK": "a CMYK image",
    "YCbCr": "a YCbCr image",
    "1": "a black-and-white image of 1 bit",
}


def _open(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise DataError(f"{where}: more than {MAX_PIXELS:,} pixels (a decompression bomb?)") from None
    except Exception:  # decoders of hostile bytes may raise anything
        raise DataError(f"{where}: not an image that can be read (PNG, JPEG, BMP, WebP, TIFF, PPM, GIF)") from None
    width, height = image.size
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise DataError(f"{where}: {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}")
    check_expansion(len(data), width * height * len(image.getbands()), where)
    return image


def _kind(image: Image.Image, data: bytes) -> str | None:
    """What is unusual about the image, or None for plain L and RGB of 8 bits."""
    if image.mode in _SIXTEEN_BIT or (image.format == "PNG" and len(data) > 24 and data[24] == 16):
        return _SIXTEEN
    if image.mode in ("L", "RGB"):
        return None
    return _WHAT.get(image.mode, f"an image of mode {image.mode}")


def _upright(image: Image.Image) -> tuple[Image.Image, str | None]:
    """The image as its EXIF orientation says that it is to be seen, and a note if that turned it."""
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # what cannot be read turns nothing
        return image, None
    return (ImageOps.exif_transpose(image), TURNED) if turned else (image, None)


def _to_plain(image: Image.Image, colour: Colour, where: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{where}: whole numbers beyond 16 bits cannot be taken as grey levels")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    elif image.mode in ("F", "LAB", "HSV"):
        raise DataError(f"{where}: {_WHAT.get(image.mode, f'an image of mode {image.mode}')} cannot be converted")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB" if colour == "rgb" else "L")


def decode_image(data: bytes, where: str, convert: Colour | None = None) -> tuple[np.ndarray, str | None]:
    """Pixels uint8 [C, H, W] of an encoded image, and what was converted (None where nothing was).

    Without `convert`, palettes, alpha, CMYK and 16 bits raise DataError, as do animations in any case. With it they
    become RGB or grey (alpha over white, 16 bits divided by 257), and so does a plain image of the other colour mode.
    An image whose EXIF orientation says so is turned upright in any case. Files that are truncated, no image, or larger
    than MAX_PIXELS raise DataError with `where`.
    """
    plain = decode_png(data)
    if plain is not None and (convert is None or len(plain) == (3 if convert == "rgb" else 1)):
        return plain, None
    image = _open(data, where)
    note, other = _kind(image, data), None
    try:
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise DataError(f"{where}: an animated image of {frames} frames; export the frames as single images")
        if note is not None and convert is None:
            raise DataError(f"{where}: {note}; `ambient data prepare` converts such files to RGB or grey")
        image, turned = _upright(image)
        if convert is not None and (note is not None or image.mode != ("RGB" if convert == "rgb" else "L")):
            if note in (None, _SIXTEEN) and (len(image.getbands()) == 3) != (convert == "rgb"):
                other = OTHER_MODE[convert]
            image = _to_plain(image, convert, where)
        pixels = np.array(image)
        if note == _SIXTEEN and pixels.max() < _FEWEST_GREYS:
            raise DataError(
                f"{where}: {note} whose values end at a quarter of that, as counts do: 8 bits would leave "
                f"{int(pixels.max()) + 1} grey levels; keep such files in a folder without images of 8 bits"
            )
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: damaged or truncated image ({first_line(error, 100)})") from None
    what = _AND.join(part for part in (note, other, turned) if part)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), what or None


def noise_factor(what: str, convert: Colour) -> float | None:
    """What white noise of standard deviation 1 becomes in a conversion that `decode_image` names `what`; None where it
    is white no more.

    Turning and 16 bits leave it as it is, and luma takes the root of the sum of its squared weights. Grey repeated in
    three channels has one noise in all of them; palettes, alpha, CMYK and YCbCr mix or cut it.
    """
    parts = set(what.split(_AND)) - {TURNED, _SIXTEEN}
    if not parts:
        return 1.0
    return float(np.linalg.norm(LUMA)) if convert == "grey" and parts == {OTHER_MODE["grey"]} else None


def is_colour(data: bytes, where: str) -> bool:
    """Whether an image file holds colour, from its header alone."""
    return _open(data, where).mode not in ("L", "LA", "La", "1", *_SIXTEEN_BIT)


def is_wide(data: bytes) -> bool:
    """Whether a PNG or TIFF holds more than 8 bits a channel, or a TIFF several images; from headers alone."""
    if data[:8] == SIGNATURE:
        return len(data) > 24 and data[24] == 16
    if data[:4] in (b"II+\0", b"MM\0+"):  # BigTIFF
        return True
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            bits = image.tag_v2.get(258, (1,))  # type: ignore[attr-defined]  # BitsPerSample
            return max(bits) > 8 or getattr(image, "n_frames", 1) > 1
    except UnidentifiedImageError:  # of a kind that Pillow does not know, as RGB of 16 bits
        return data[:4] in (b"II*\0", b"MM\0*")
    except Exception:
        return False
