"""FITS: planes, with their variance."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.formats.extras import import_extra
from ambient_train.data.formats.frames import Frames, as_stored, check_shape, layout
from ambient_train.data.formats.limits import check_array_size, check_expansion
from ambient_train.data.formats.noise_arrays import StatedNoise, as_noise
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import file_source, is_one

_VARIANCE = ("VAR", "VARIANCE", "VARMAP")
_DEVIATION = ("ERR", "ERROR", "STAT", "UNCERT", "UNCERTAINTY", "SIGMA", "STD", "STDDEV", "RMS", "NOISE")
_WEIGHT = ("WHT", "WEIGHT", "WEIGHTS", "IVAR", "INVVAR", "INVVARIANCE")


class Fits:
    """FITS 4.0 by astropy: the first extension that holds an image (or the one that is named), planes as images.

    An extension of its shape called VAR(IANCE), ERR(OR), STD, RMS, ... or WHT, IVAR, ... states the noise of each
    pixel.
    """

    suffixes: tuple[str, ...] = (".fits", ".fit", ".fts", ".fits.gz")

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        fits: Any = import_extra("astropy.io.fits", "science", f"{where}: reading FITS")
        size = file.seek(0, 2)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hdus = fits.open(file, memmap=False, lazy_load_hdus=False)
            images = [h for h in hdus if h.is_image and h.header.get("NAXIS", 0) >= 2 and 0 not in h.shape]
        chosen = _chosen(images, inside, where)
        count, shape, at, _ = layout(chosen.shape, where)
        if shape[0] != 1 or len(chosen.shape) < 3:  # an axis of 3 counts images: FITS has no colours
            count, shape = int(np.prod(chosen.shape[:-2], dtype=np.int64)), (1, *chosen.shape[-2:])
        expanded = check_array_size((count, *shape), abs(int(chosen.header["BITPIX"])) // 8, where)
        check_expansion(size, expanded, where)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.asarray(chosen.data).reshape(count, *shape[1:])
        shape = check_shape(count, shape, values.dtype, where)
        notes: list[str] = []
        noise, used = _noise(images, chosen, count, where, notes)
        others = [h.name or "(unnamed)" for h in images if h is not chosen and h is not used]
        if others:
            notes.append(
                f"of a FITS file the extension {chosen.name or 'PRIMARY'} is read, not {', '.join(others[:5])}"
            )
        return Frames(count, shape, values.dtype, lambda k: values[k][None], hdus.close, noise, notes=tuple(notes))

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        fits: Any = import_extra("astropy.io.fits", "science", f"{path}: writing FITS")
        stored, header = as_stored(images), None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if like is not None:
                with fits.open(like, memmap=False, lazy_load_hdus=False) as hdus:
                    found = [h for h in hdus if h.is_image and h.header.get("NAXIS", 0) >= 2 and 0 not in h.shape]
                    chosen = _chosen(found, inside, str(path))
                    header = chosen.header.copy(strip=True)
                    if int(np.prod(chosen.shape)) == stored.size:
                        stored = images.reshape(chosen.shape)
                for key in ("BSCALE", "BZERO", "BLANK"):
                    header.remove(key, ignore_missing=True)
            elif images.shape[1] == 3:
                stored = images[0] if len(images) == 1 else images
            fits.PrimaryHDU(stored, header).writeto(path, overwrite=True)


def _chosen(images: list[Any], inside: str, where: str) -> Any:
    shown = ", ".join(f"{h.name or 'PRIMARY'} {list(h.shape)}" for h in images[:6]) or "none"
    if not images:
        raise DataError(f"{where}: no image in it")
    if not inside:
        noise = {*_VARIANCE, *_DEVIATION, *_WEIGHT, "MASK", "DQ"}
        return next((h for h in images if h.name.upper() not in noise), images[0])
    wanted = inside.strip("/").upper()
    for hdu in images:
        if (hdu.name.upper() or "PRIMARY") == wanted:
            return hdu
    raise UsageError(f"{where}: no image extension {inside} in it; there are: {shown}")


def _noise(images: list[Any], chosen: Any, count: int, where: str, notes: list[str]) -> tuple[StatedNoise, Any]:
    """The noise in the units of the image, from the extension that states that of each pixel."""
    for hdu in images:
        name = hdu.name.upper()
        if hdu is chosen or name not in (*_VARIANCE, *_DEVIATION, *_WEIGHT):
            continue
        if hdu.shape != chosen.shape:
            notes.append(f"the extension {name} is not read: its shape {list(hdu.shape)} is not the image's")
            continue
        stated = np.asarray(hdu.data, np.float64).reshape(count, 1, *chosen.shape[-2:])
        missing = ~np.isfinite(stated) | (stated < 0) | ((stated == 0) & (name in _WEIGHT))
        if missing.any():
            raise DataError(
                f"{where}: {int(missing.sum()):,} of {stated.size:,} pixels have no finite noise in the extension "
                f"{name}: a missing pixel has no noise level; fill them, or leave such images out"
            )
        deviation = 1 / np.sqrt(stated) if name in _WEIGHT else stated if name in _DEVIATION else np.sqrt(stated)
        notes.append(f"noise levels are read from the extension {name}")
        return as_noise(deviation, (count, 1, *chosen.shape[-2:]), f"{where}:/{name}"), hdu
    return StatedNoise(), None


FORMAT = Fits()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
