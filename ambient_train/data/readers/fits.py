"""FITS: planes, with their variance."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.limits import check_array_size, check_expansion, unpacked
from ambient_train.data.formats import columns
from ambient_train.data.formats.extras import import_extra
from ambient_train.data.formats.frames import Frames, as_stored, check_shape, layout
from ambient_train.data.formats.noise_arrays import StatedNoise, as_deviation, as_noise, read_from
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import file_source, is_one

_PACKINGS = ("RICE_1", "GZIP_1", "GZIP_2", "NOCOMPRESS")
_BLOCK, _CARD, _MOST = 2880, 80, 999
_COUNT = re.compile(rb"(?:HIERARCH +)?(Z?NAXIS|TFIELDS) *= *([-+]?\d+)", re.IGNORECASE)


class Fits:
    """FITS 4.0 by astropy: the first extension that holds an image (or the one that is named), planes as images.

    An extension of its shape called VAR, ERR, STD, RMS, WHT, IVAR, ... (`columns.NOISE_NAMES`) states the noise of each
    pixel.
    """

    suffixes: tuple[str, ...] = (
        *(".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz"),
        *(".fits.fz", ".fit.fz", ".fts.fz", ".fz"),  # packed in tiles, by fpack
    )

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        fits: Any = import_extra("astropy.io.fits", "science", f"{where}: reading FITS")
        file, size = unpacked(file, where)
        hdus = _opened(fits, file, where)
        images = _images(hdus)
        chosen = _chosen(images, inside, where)
        count, shape, at, _ = layout(chosen.shape, where)
        if shape[0] != 1 or len(chosen.shape) < 3:  # an axis of 3 counts images: FITS has no colours
            count, shape = int(np.prod(chosen.shape[:-2], dtype=np.int64)), (1, *chosen.shape[-2:])
        values = _values(chosen, size, where).reshape(count, *shape[1:])
        shape = check_shape(count, shape, values.dtype, where)
        notes: list[str] = []
        noise, used = _noise(images, chosen, count, size, where, notes)
        others = [h.name or "(unnamed)" for h in images if h is not chosen and h is not used]
        if others:
            notes.append(
                f"of a FITS file the extension {chosen.name or 'PRIMARY'} is read, not {', '.join(others[:5])}"
            )
        return Frames(count, shape, values.dtype, lambda k: values[k][None], hdus.close, noise, notes=tuple(notes))

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        fits: Any = import_extra("astropy.io.fits", "science", f"{path}: writing FITS")
        stored = as_stored(images)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if like is None:
                stored = stored if images.shape[1] == 1 else images[0] if len(images) == 1 else images
                made = [fits.PrimaryHDU(stored)]
            else:
                with _opened(fits, unpacked(like, str(path))[0], str(path)) as hdus:
                    chosen = _chosen(_images(hdus), inside, str(path))
                    if int(np.prod(chosen.shape)) == stored.size:
                        stored = images.reshape(chosen.shape)
                    made = [unit for hdu in hdus if (unit := _again(fits, hdu, chosen, stored)) is not None]
            fits.HDUList(made).writeto(path, overwrite=True)


def _again(fits: Any, hdu: Any, chosen: Any, stored: np.ndarray) -> Any:
    """A unit of a file as it is written again: the image with its new values, others as they are.

    None for what states the noise, which would be wrong of restored images, and for other units that are packed.
    """
    if hdu is not chosen:
        first, plain = isinstance(hdu, fits.PrimaryHDU), not hasattr(hdu, "compression_type")
        return hdu.copy() if first or (plain and columns.plain(hdu.name) not in columns.NOISE_NAMES) else None
    header = hdu.header.copy(strip=True)
    for key in ("BSCALE", "BZERO", "BLANK"):
        header.remove(key, ignore_missing=True)
    if not hasattr(hdu, "compression_type"):
        return (fits.PrimaryHDU if isinstance(hdu, fits.PrimaryHDU) else fits.ImageHDU)(stored, header)
    whole = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 4
    return fits.CompImageHDU(stored, header, compression_type="RICE_1" if whole else "GZIP_2", quantize_level=0)


def _opened(fits: Any, file: BinaryIO, where: str) -> Any:
    """All units of a file, each looked at before astropy reads it. Raises DataError where one does not begin behind the
    one before, and where its header counts beyond the standard: astropy never returns from either."""
    if file.read(6) != b"SIMPLE":
        raise DataError(f"{where}: not a FITS file")
    _check_counts(file, 0, where)
    file.seek(0)
    hdus, end = fits.open(file, memmap=False, lazy_load_hdus=True), 0
    try:
        for hdu in hdus:  # reads one after the other
            place = hdu.fileinfo()
            if place["hdrLoc"] < end or place["datSpan"] < 0:
                raise DataError(f"{where}: a damaged FITS file (its units follow each other in a circle)")
            end = place["datLoc"] + place["datSpan"]
            _check_counts(file, end, where)
    except BaseException:
        hdus.close()
        raise
    return hdus


def _check_counts(file: BinaryIO, at: int, where: str) -> None:
    """Raise DataError where the header at `at` has more axes or columns than FITS 4.0 allows (4.4.1, 7.2)."""
    file.seek(at)
    while block := file.read(_BLOCK):
        for start in range(0, len(block), _CARD):
            card = block[start : start + _CARD]
            if card.rstrip() == b"END":
                return
            count = _COUNT.match(card)
            if count is not None and not 0 <= int(count[2]) <= _MOST:
                raise DataError(f"{where}: a damaged FITS file ({count[1].decode()} = {int(count[2])})")


def _images(hdus: Any) -> list[Any]:
    return [h for h in hdus if h.is_image and h.header.get("NAXIS", 0) >= 2 and 0 not in h.shape]


def _chosen(images: list[Any], inside: str, where: str) -> Any:
    shown = ", ".join(f"{h.name or 'PRIMARY'} {list(h.shape)}" for h in images[:6]) or "none"
    if not images:
        raise DataError(f"{where}: no image in it")
    if not inside:
        others = {*columns.NOISE_NAMES, "mask", "dq"}
        return next((h for h in images if columns.plain(h.name) not in others), images[0])
    wanted = inside.strip("/").upper()
    for hdu in images:
        if (hdu.name.upper() or "PRIMARY") == wanted:
            return hdu
    raise UsageError(f"{where}: no image extension {inside} in it; there are: {shown}")


def _values(hdu: Any, size: int, where: str) -> np.ndarray:
    """What an extension holds, in its shape, unpacked from its tiles (FITS 4.0, section 10) where it is packed.

    Raises DataError for what expands too far, and for packings whose decoder in astropy writes where it may not when
    the bytes are damaged: that would end the process, or spoil what it holds.
    """
    packing = getattr(hdu, "compression_type", None)
    if packing not in (None, *_PACKINGS):
        raise DataError(
            f"{where}: packed by {packing}, which cannot be unpacked safely; unpack it with funpack, or pack it by "
            "RICE_1 or GZIP_2"
        )
    itemsize = abs(int(hdu.header["BITPIX"])) // 8
    tile = 0 if packing is None else math.prod(hdu.tile_shape)
    check_expansion(size, max(check_array_size(hdu.shape, itemsize, where), tile * itemsize), where)
    return np.asarray(hdu.data)


def _noise(
    images: list[Any], chosen: Any, count: int, size: int, where: str, notes: list[str]
) -> tuple[StatedNoise, Any]:
    """The noise in the units of the image, from the extension that states that of each pixel."""
    for hdu in images:
        name = hdu.name.upper()
        if hdu is chosen or columns.plain(name) not in columns.NOISE_NAMES:
            continue
        if hdu.shape != chosen.shape:
            notes.append(f"the extension {name} is not read: its shape {list(hdu.shape)} is not the image's")
            continue
        stated = _values(hdu, size, f"{where}:{name}").astype(np.float64).reshape(count, 1, *chosen.shape[-2:])
        weight = columns.NOISE_NAMES[columns.plain(name)][0] == columns.INVERSE
        missing = ~np.isfinite(stated) | (stated < 0) | ((stated == 0) & weight)
        if missing.any():
            raise DataError(
                f"{where}: {int(missing.sum()):,} of {stated.size:,} pixels have no finite noise in the extension "
                f"{name}: a missing pixel has no noise level; fill them, or leave such images out"
            )
        notes.append(read_from(name, f"the extension {name}"))
        stated = as_deviation(stated, name, f"{where}:{name}")
        return as_noise(stated, (count, 1, *chosen.shape[-2:]), f"{where}:{name}"), hdu
    return StatedNoise(), None


FORMAT = Fits()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
