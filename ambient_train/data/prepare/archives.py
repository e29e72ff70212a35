"""Writing prepared archives, byte for byte the same wherever and whenever: EDM's zip layout, and npz.

The zip holds uncompressed PNGs named 00000/img00000000.png and a `dataset.json` with `labels` as EDM and StyleGAN read
them; our own keys beside it (`sigma`, `label_names`, `prepared`) are ignored by those.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import canonical_json, fsync_directory
from ambient_train.data.formats.png import encode_png

_KEPT = ("schema", "hash", "config", "count", "dtype", "shape", "converted", "skipped")
_BLOCK = 1024


def member_name(index: int) -> str:
    """EDM's name of image number `index`: 00000/img00000000.png, a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o100644 << 16
    return info


def write_archive(
    dest: Path, kind: str, pixels: Path, summary: dict[str, Any], progress: Callable[[str, int, int], None]
) -> None:
    """Write DEST from the raw pixels, under a temporary name beside it, flush, and rename."""
    temporary = dest.with_name(f".{dest.name}.tmp")
    images = np.memmap(pixels, np.dtype(summary["dtype"]), "r", shape=(summary["count"], *summary["shape"]))
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                (_write_zip if kind == "zip" else _write_npz)(archive, images, summary, progress)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, dest)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_directory(dest.parent)


def _write_zip(
    archive: zipfile.ZipFile, images: np.ndarray, summary: dict[str, Any], progress: Callable[[str, int, int], None]
) -> None:
    count = len(images)
    for index in range(count):
        archive.writestr(_info(member_name(index)), encode_png(images[index]))
        if index % _BLOCK == 0:
            progress("write", index, count)

    def pairs(values: list[Any] | None) -> list[list[Any]] | None:
        return None if values is None else [[member_name(i), value] for i, value in enumerate(values)]

    content: dict[str, Any] = {"labels": pairs(summary["labels"])}
    for key, value in (("sigma", pairs(summary["sigma"])), ("label_names", summary["label_names"])):
        if value is not None:
            content[key] = value
    content["prepared"] = {key: summary[key] for key in _KEPT}
    archive.writestr(_info("dataset.json"), json.dumps(content))
    progress("write", count, count)


def _write_npz(
    archive: zipfile.ZipFile, images: np.ndarray, summary: dict[str, Any], progress: Callable[[str, int, int], None]
) -> None:
    count = len(images)
    with archive.open(_info("images.npy"), "w", force_zip64=True) as stream:
        _npy_header(stream, images.dtype, images.shape)
        for start in range(0, count, _BLOCK):
            stream.write(np.ascontiguousarray(images[start : start + _BLOCK]).tobytes())
            progress("write", start, count)
    extra = {
        "labels": None if summary["labels"] is None else np.array(summary["labels"], np.int64),
        "sigma": None if summary["sigma"] is None else np.array(summary["sigma"], np.float32),
        "prepared": np.frombuffer(
            canonical_json({key: summary[key] for key in (*_KEPT, "label_names")}).encode(), np.uint8
        ),
    }
    for name, array in extra.items():
        if array is not None:
            buffer = io.BytesIO()
            _npy_header(buffer, array.dtype, array.shape)
            archive.writestr(_info(f"{name}.npy"), buffer.getvalue() + array.tobytes())
    progress("write", count, count)


def _npy_header(stream: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )


def finished_config(path: Path) -> dict[str, Any] | None:
    """What an archive says of its own making (with `labels` and `sigma` put back), or None if it is not one of ours."""
    from ambient_train.data.formats.arrays import load_npz
    from ambient_train.data.formats.trees import open_zip

    try:
        if path.suffix.lower() == ".zip":
            content = json.loads(open_zip(path).read("dataset.json"))
            done = content["prepared"]
            for key in ("labels", "sigma"):
                done[key] = None if content.get(key) is None else [value for _, value in content[key]]
        else:
            arrays = load_npz(path, only=("prepared", "labels", "sigma"))
            done = json.loads(arrays["prepared"].tobytes())
            for key in ("labels", "sigma"):
                done[key] = arrays[key].tolist() if key in arrays else None
    except (DataError, KeyError, ValueError, TypeError, RecursionError):
        return None
    return done if isinstance(done, dict) and all(key in done for key in _KEPT) else None
