"""NIfTI: slices of .nii(.gz)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.limits import check_array_size, check_expansion, unpacked
from ambient_train.data.formats.extras import import_extra
from ambient_train.data.formats.frames import Frames, check_shape
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import file_source, is_one, no_inside

logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it says of damaged files names none of them


class Nifti:
    """NIfTI-1 and -2 by nibabel. A volume [X, Y, Z] is Z images of Y rows and X columns, a series [X, Y, Z, T] T times
    as many; values are scaled as the header says."""

    suffixes: tuple[str, ...] = (".nii", ".nii.gz")

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        no_inside(inside, where)
        volume = _volume(unpacked(file, where)[0].read(), where)
        header = volume.header
        spatial = tuple(int(n) for n in volume.shape)
        if not 2 <= len(spatial) <= 5 or min(spatial) < 1:
            raise DataError(f"{where}: shape {spatial} is not a volume of slices")
        count = int(np.prod(spatial[2:], dtype=np.int64))
        dtype = header.get_data_dtype()
        shape = check_shape(count, (1, spatial[1], spatial[0]), dtype, where)
        check_array_size((count, *shape), dtype.itemsize, where)
        scaled = (volume.dataobj.slope, volume.dataobj.inter) != (1, 0)  # the header of a volume that was read has none
        values = np.asarray(volume.dataobj) if scaled else np.asarray(volume.dataobj.get_unscaled())
        if scaled:
            values = values.astype(np.float32)
        planes = values.reshape(*spatial[:2], count, order="F")
        return Frames(count, shape, values.dtype, lambda k: planes[:, :, k].T[None])

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        nibabel: Any = import_extra("nibabel", "science", f"{path}: writing NIfTI")
        if images.shape[1] != 1:
            raise DataError(f"{path}: NIfTI holds grey images")
        planes = images[:, 0].transpose(2, 1, 0)
        affine, header, scale, kind = np.eye(4), None, (1.0, 0.0), nibabel.Nifti1Image
        if like is not None:
            old = _volume(unpacked(like, str(path))[0].read(), str(path))
            affine, header, kind = old.affine, old.header.copy(), type(old)
            if int(np.prod(old.shape)) == planes.size:
                planes = planes.reshape(old.shape, order="F")
            own = header.get_data_dtype()
            if own.kind in "iu" and own != planes.dtype:  # as they were stored: whole numbers with a scale
                scale, kept = (float(old.dataobj.slope), float(old.dataobj.inter)), np.iinfo(own)
                planes = np.clip(np.rint((planes - scale[1]) / scale[0]), kept.min, kept.max).astype(own)
            header.set_data_dtype(planes.dtype)
        made = kind(np.ascontiguousarray(planes), affine, header, dtype=planes.dtype)
        made.header.set_slope_inter(*scale)
        made.to_filename(path)


def _volume(data: bytes, where: str) -> Any:
    nibabel: Any = import_extra("nibabel", "science", f"{where}: reading NIfTI")
    kind = nibabel.Nifti2Image if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nibabel.Nifti1Image
    volume = kind.from_bytes(data)
    shape = tuple(int(n) for n in volume.shape)
    needed = check_array_size(shape, volume.header.get_data_dtype().itemsize, where)
    check_expansion(len(data), needed, where)
    if needed > len(data):
        raise DataError(f"{where}: truncated, {needed:,} bytes announced in a file of {len(data):,}")
    return volume


FORMAT = Nifti()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
