"""Small files of every kind for the tests of the data package."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def rgb(count: int = 6, side: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random images uint8 [count, channels, side, side]."""
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side)).astype(np.uint8)


def png(pixels: np.ndarray, **options: Any) -> bytes:
    """Encoded by Pillow."""
    return encode(Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)), "PNG", **options)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def edm_files(images: np.ndarray, labels: list[int] | None) -> dict[str, bytes]:
    """Files of EDM's layout."""
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(images))]
    pairs = None if labels is None else [[name, label] for name, label in zip(names, labels, strict=True)]
    files = {name: png(image) for name, image in zip(names, images, strict=True)}
    return {**files, "dataset.json": json.dumps({"labels": pairs}).encode()}


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist_folder(root: Path, train: int = 20, test: int = 7, side: int = 8, compressed: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for part, count in (("train", train), ("t10k", test)):
        images, labels = rng.integers(0, 256, (count, side, side)), rng.integers(0, 10, count)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            (root / (name + ".gz" * compressed)).write_bytes(gzip.compress(data) if compressed else data)
    return root


def cifar_batches(per_batch: int = 4) -> dict[str, tuple[np.ndarray, list[int]]]:
    rng = np.random.default_rng(8)
    return {
        name: (rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8), rng.integers(0, 10, per_batch).tolist())
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    }


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cifar_python_files(batches: Mapping[str, tuple[np.ndarray, list[int]]], protocol: int = 2) -> dict[str, bytes]:
    files = {"cifar-10-batches-py/readme.html": b"x"}
    for name, (pixels, labels) in batches.items():
        content = {b"batch_label": name.encode(), b"labels": labels, b"data": pixels, b"filenames": [b"a.png"]}
        files[f"cifar-10-batches-py/{name}"] = pickle.dumps(content, protocol)
    return files


def cifar_binary_files(batches: Mapping[str, tuple[np.ndarray, list[int]]]) -> dict[str, bytes]:
    return {
        f"cifar-10-batches-bin/{name}.bin": np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1).tobytes()
        for name, (pixels, labels) in batches.items()
    }
