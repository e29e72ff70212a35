"""CIFAR-10 .tar.gz or its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambient_theory.shared.errors import DataError
from ambient_train.data.formats.cifar import is_cifar_folder, read_batches
from ambient_train.data.readers import Reader
from ambient_train.data.source import Source

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(path: Path, name: str = "cifar10") -> Source:
    """CIFAR-10 from cifar-10-python.tar.gz, cifar-10-binary.tar.gz or the folder of either: five training batches,
    test_batch held out."""
    batches = read_batches(path)
    training = sorted(key for key in batches if key.startswith("data_batch"))
    if not training:
        raise DataError(f"{path}: no CIFAR-10 batches (data_batch_1 ... 5, test_batch) in it")
    missing = sorted({f"data_batch_{i}" for i in range(1, 6)} - set(training))
    if missing and len(training) < 5:
        raise DataError(f"{path}: {', '.join(missing)} is missing (a truncated download?)")
    order = [*training, *(["test_batch"] if "test_batch" in batches else [])]
    images = np.concatenate([batches[key][0] for key in order]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([batches[key][1] for key in order])
    held = np.concatenate([np.full(len(batches[key][1]), key == "test_batch") for key in order])
    return Source(
        name=name,
        count=len(images),
        read=lambda ids: images[ids],
        labels=labels,
        heldout=held if held.any() else None,
        classes=CLASSES,
    )


def _recognises(spec: str) -> bool:
    path = Path(spec).expanduser()
    return is_cifar_folder(path) or path.name.lower().endswith((".tar.gz", ".tgz", ".tar"))


MEMBER = Reader(_recognises, lambda spec: cifar10(Path(spec).expanduser()))
