"""Writing prepared archives, byte for byte the same wherever and whenever: EDM's zip layout, and npz.

The zip holds uncompressed PNGs named 00000/img00000000.png and a `dataset.json` with `labels` as EDM and StyleGAN read
them; our own keys beside it (`sigma`, `group`, `label_names`, `prepared`) are ignored by those.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import atomic_file, canonical_json
from ambient_theory.shared.parsing import parse_json
from ambient_train.data.formats.png import encode_png

_KEPT = ("schema", "hash", "config", "count", "dtype", "shape", "converted", "skipped")
_BLOCK = 1024


def member_name(index: int) -> str:
    """EDM's name of image number `index`: 00000/img00000000.png, a thousand to a folder."""
    return f"{index // 1000:05d}/img{index:08d}.png"


def _info(name: str) -> zipfile.ZipInfo:
    """An entry with fixed time and rights, so that the same content is the same bytes."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o100644 << 16
    return info


def write_archive(
    dest: Path, kind: str, pixels: Path, summary: dict[str, Any], progress: Callable[[str, int, int], None]
) -> None:
    """Write DEST from the raw pixels, atomically."""
    images = np.memmap(pixels, np.dtype(summary["dtype"]), "r", shape=(summary["count"], *summary["shape"]))
    with atomic_file(dest) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        (_write_zip if kind == "zip" else _write_npz)(archive, images, summary, progress)


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
    named = {key: pairs(summary[key]) for key in ("sigma", "group")} | {"label_names": summary["label_names"]}
    for key, value in named.items():
        if value is not None:
            content[key] = value
    content["prepared"] = {key: summary[key] for key in _KEPT}
    archive.writestr(_info("dataset.json"), json.dumps(content))
    progress("write", count, count)


def _write_npz(
    archive: zipfile.ZipFile, images: np.ndarray, summary: dict[str, Any], progress: Callable[[str, int, int], None]
) -> None:
    count = len(images)
    with npy_stream(archive, "images", images.dtype, images.shape) as stream:
        for start in range(0, count, _BLOCK):
            stream.write(np.ascontiguousarray(images[start : start + _BLOCK]).tobytes())
            progress("write", start, count)
    extra = {
        "labels": None if summary["labels"] is None else np.array(summary["labels"], np.int64),
        "sigma": None if summary["sigma"] is None else np.array(summary["sigma"], np.float32),
        "group": None if summary["group"] is None else np.array(summary["group"], np.int64),
        "prepared": np.frombuffer(
            canonical_json({key: summary[key] for key in (*_KEPT, "label_names")}).encode(), np.uint8
        ),
    }
    if summary["values"] is not None:
        extra["values"] = summary["values"].to_bytes()
    for name, array in extra.items():
        if array is not None:
            write_npy(archive, name, array)
    progress("write", count, count)


@contextlib.contextmanager
def npy_stream(archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Member `name` of an .npz, its header written: give it the values of the array in C order."""
    with archive.open(_info(f"{name}.npy"), "w", force_zip64=True) as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        yield stream


def write_npy(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """A whole array as member `name` of an .npz."""
    with npy_stream(archive, name, array.dtype, array.shape) as stream:
        stream.write(array.tobytes())


def finished_config(path: Path) -> dict[str, Any] | None:
    """What an archive says of its own making (with `labels` and `sigma` put back), or None if it is not one of ours."""
    from ambient_theory.shared.npy import load_npz
    from ambient_train.data.formats.trees import open_zip

    try:
        if path.suffix.lower() == ".zip":
            content = parse_json(open_zip(path).read("dataset.json"))
            done = content["prepared"]
            for key in ("labels", "sigma"):
                done[key] = None if content.get(key) is None else [value for _, value in content[key]]
        else:
            arrays = load_npz(path, only=("prepared", "labels", "sigma"))
            done = parse_json(arrays["prepared"].tobytes())
            for key in ("labels", "sigma"):
                done[key] = arrays[key].tolist() if key in arrays else None
    except (DataError, KeyError, ValueError, TypeError):
        return None
    return done if isinstance(done, dict) and all(key in done for key in _KEPT) else None
