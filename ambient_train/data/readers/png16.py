"""PNG of 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ambient_train.data.formats.frames import Frames, check_shape, too_large
from ambient_train.data.formats.png16 import decode_png16, encode_png16, read_header
from ambient_train.data.readers import Reader
from ambient_train.data.readers._numbers import file_source, is_one, no_inside


class Png16:
    """Grey and RGB of 16 bits (PNG specification, third edition), as uint16."""

    suffixes: tuple[str, ...] = (".png",)

    def open(self, file: BinaryIO, where: str, inside: str) -> Frames:
        no_inside(inside, where)
        too_large(file.seek(0, 2), where)
        file.seek(0)
        data = file.read()
        shape = check_shape(1, read_header(data, where), np.dtype(np.uint16), where)
        return Frames(1, shape, np.dtype(np.uint16), lambda k: decode_png16(data, where))

    def write(self, path: Path, images: np.ndarray, like: BinaryIO | None, inside: str) -> None:
        path.write_bytes(encode_png16(images[0]))


FORMAT = Png16()
MEMBER = Reader(lambda spec: is_one(spec, FORMAT), file_source, format=FORMAT)
