"""TIFF: stacks, 16 and 32 bits, floats."""

from __future__ import annotations

import contextlib
import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import check_array_size, check_expansion
from ambient_train.data.formats.extras import import_extra
from ambient_train.data.formats.frames import Frames, as_chw, as_stored, check_shape
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import file_source, is_one, no_inside

_COUNTED_BY_IMAGEJ = frozenset(("ImageJ", "images", "channels", "slices", "frames", "hyperstack", "axes"))
"""What tifffile writes by itself from the axes."""


class Tiff:
    """TIFF 6.0, BigTIFF, OME and ImageJ stacks, by tifffile; compressions that it has not are left to Pillow."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        no_inside(inside, where)
        tifffile: Any = import_extra("tifffile", "science", f"{where}: reading TIFF stacks and TIFFs beyond 8 bits")
        size = file.seek(0, 2)
        file.seek(0)
        _check_chain(file, where)
        with _complaints(where):
            tif = tifffile.TiffFile(file)
            series = tif.series[0]
            pages, others = series.pages, len(tif.series) - 1
            len(tif.pages)  # walks to the end of the file: a page that is cut off is found now
        notes = [f"of a TIFF only the first of its series of images is read, {others} more are not"] * bool(others > 0)
        axes, sizes = str(series.axes), tuple(int(n) for n in series.shape)
        last = axes.endswith("S")
        inner = 3 if last or axes[-3:] == "SYX" else 2
        lead = sizes[: len(sizes) - inner]
        count = math.prod(lead)
        channels = sizes[axes.index("C")] if "C" in axes[: len(lead)] else 1
        if len([n for n in lead if n > 1]) > 1 or channels > 1:
            of = f", those of its {channels} channels too" * (channels > 1)
            notes.append(f"a TIFF of axes {axes}, {list(sizes)}: each plane of them is an image of its own{of}")
        shape: tuple[int, ...] = sizes[-3:] if inner == 3 else (1, *sizes[-2:])
        shape = (shape[2], shape[0], shape[1]) if last else shape
        chw = check_shape(count, shape, series.dtype, where)
        expanded = check_array_size((count, *chw), series.dtype.itemsize, where)
        check_expansion(size, expanded, where)
        if len(pages) == count and _is_image(series.keyframe.shape, chw):

            def read(k: int) -> np.ndarray:
                with _complaints(where):
                    page = pages[k]
                _check_page(page, k, series.keyframe, size, where)
                try:
                    with _complaints(where):
                        values = page.asarray()
                except (ValueError, KeyError, ImportError) as error:
                    if "imagecodecs" not in str(error):
                        raise
                    values = _by_pillow(file, k, where, str(error))
                return as_chw(values, values.ndim == 3 and values.shape != chw)
        else:  # one page that stands for a whole stack, as ImageJ writes beyond 4 GB
            for k, page in enumerate(pages):
                _check_page(page, k, series.keyframe, size, where)
            with _complaints(where):
                whole = series.asarray()
            whole = whole.reshape(count, *sizes[len(lead) :])

            def read(k: int) -> np.ndarray:
                return as_chw(whole[k], last)

        return Frames(count, chw, np.dtype(series.dtype), read, tif.close, notes=tuple(notes))

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        tifffile: Any = import_extra("tifffile", "science", f"{path}: writing TIFF")
        colours = "rgb" if images.shape[1] == 3 else "minisblack"
        if like is not None:
            with _complaints(str(path)), tifffile.TiffFile(like) as old:
                series = old.series[0]
                if math.prod(series.shape) == images.size:
                    arranged = images.transpose(0, 2, 3, 1) if str(series.axes).endswith("S") else images
                    _write_like(tifffile, path, np.ascontiguousarray(arranged.reshape(series.shape)), old, colours)
                    return
        tifffile.imwrite(path, as_stored(images), photometric=colours)


def _write_like(tifffile: Any, path: Path, values: np.ndarray, old: Any, colours: str) -> None:
    """Values in the axes of an open file, with its byte order, resolution and description (ImageJ's and OME's, too)."""
    series, first = old.series[0], old.pages[0]
    axes, tags = str(series.axes), first.tags
    options: dict[str, Any] = {"byteorder": old.byteorder, "photometric": colours}
    if colours != "rgb" and int(first.photometric) == 0:
        options["photometric"] = "miniswhite"
    if "XResolution" in tags and "YResolution" in tags:
        options |= {"resolution": (tags["XResolution"].value, tags["YResolution"].value)}
        options |= {"resolutionunit": int(first.resolutionunit)}
    if old.is_imagej:
        known = {key: value for key, value in (old.imagej_metadata or {}).items() if key not in _COUNTED_BY_IMAGEJ}
        tifffile.imwrite(path, values, imagej=True, metadata={**known, "axes": axes}, **options)
        return
    if old.is_ome:
        tifffile.imwrite(path, values, description=old.ome_metadata.encode(), metadata=None, **options)
        with tifffile.TiffFile(path) as new:
            if new.is_ome and str(new.series[0].axes) == axes and np.array_equal(new.series[0].asarray(), values):
                return
        tifffile.imwrite(path, values, ome=True, metadata={"axes": axes}, **options)
        return
    if old.is_shaped:
        tifffile.imwrite(path, values, metadata={"axes": axes}, **options)
        return
    tifffile.imwrite(path, values, description=(first.description or "").encode() or None, metadata=None, **options)


def _check_chain(file: BinaryIO, where: str) -> None:
    """Raise DataError for pages that follow each other in a circle, or point beyond the file: tifffile never returns.

    TIFF 6.0 (Adobe 1992) and BigTIFF: a directory is a count, entries of 12 or 20 bytes, and the place of the next.
    """
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) == 16 else 0
    if version not in (42, 43):
        raise DataError(f"{where}: not a TIFF")
    count, entry, place = (("H", 12, "I"), ("Q", 20, "Q"))[version - 42]
    start = 4 if version == 42 else 8
    (at,) = struct.unpack_from(f"{order}{place}", head, start)
    met: set[int] = set()
    while at:
        if at in met:
            raise DataError(f"{where}: a damaged TIFF (its pages follow each other in a circle)")
        met.add(at)
        file.seek(at)
        number = file.read(struct.calcsize(count))
        if len(number) < struct.calcsize(count):
            raise DataError(f"{where}: a damaged or truncated TIFF (page {len(met)} is beyond its end)")
        file.seek(at + len(number) + entry * struct.unpack(f"{order}{count}", number)[0])
        following = file.read(struct.calcsize(place))
        if len(following) < struct.calcsize(place):
            raise DataError(f"{where}: a damaged or truncated TIFF (page {len(met)} is cut off)")
        (at,) = struct.unpack(f"{order}{place}", following)
    file.seek(0)


@contextlib.contextmanager
def _complaints(where: str) -> Iterator[None]:
    """DataError for what tifffile would only log of a file: pages that it leaves out, tags that it cannot read."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().splitlines()[0][:100])

    logger, listener = logging.getLogger("tifffile"), Listener(logging.WARNING)
    logger.addHandler(listener)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagated
    if said:
        raise DataError(f"{where}: a damaged TIFF ({said[0]})")


def _check_page(page: Any, k: int, first: Any, size: int, where: str) -> None:
    """Raise DataError for page k where it is absent or unlike the first, and for strips or tiles larger than the file
    can fill."""
    if page is None:
        raise DataError(
            f"{where}: plane {k} is announced and not there (they are counted from 0): export the stack again, with "
            "all of its planes or a description of those that are there"
        )
    if page.shape != first.shape or page.dtype != first.dtype:
        raise DataError(f"{where}: pages of different sizes or types of values; write them as files of their own")
    if max(page.databytecounts, default=0) > size:
        raise DataError(f"{where}: a damaged or truncated TIFF (a part of a page is longer than the file)")
    if first.is_tiled:
        check_expansion(size, math.prod(int(n) for n in page.chunks) * page.dtype.itemsize, where)


def _is_image(page: tuple[int, ...], shape: tuple[int, int, int]) -> bool:
    channels, height, width = shape
    return page in ((height, width), (height, width, channels), (channels, height, width))


def _by_pillow(file: BinaryIO, page: int, where: str, reason: str) -> np.ndarray:
    """A page whose compression tifffile cannot undo by itself."""
    from PIL import Image

    mode = None
    with contextlib.suppress(Exception):  # decoders of hostile bytes may raise anything
        file.seek(0)
        with Image.open(file, formats=("TIFF",)) as image:
            image.seek(page)
            mode, values = image.mode, np.array(image)
    if mode not in ("L", "RGB", "I;16", "I;16B", "I;16L", "F"):
        raise DataError(f"{where}: page {page} is damaged, or {reason}: pip install imagecodecs")
    return values


FORMAT = Tiff()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
