"""Weights from elsewhere, read as plain tensors: no file read here can run Python code."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch

from ambient_theory.shared.errors import DataError, first_line
from ambient_train.safe_pickle import read_weights


def as_colour(images: torch.Tensor) -> torch.Tensor:
    """Images [N, 1 or 3, H, W] -> [N, 3, H, W]; grey is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def importable(name: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def read(path: Path) -> bytes:
    """All bytes of a file. Raises DataError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def file_hash(definition: bytes, data: bytes) -> str:
    """8 hex digits of what determines the features: the written definition and the weights."""
    return hashlib.sha256(definition + b"\0" + data).hexdigest()[:8]


def tensors(data: bytes, where: str) -> dict[str, torch.Tensor]:
    """A flat dictionary of tensors from a `.pth` file, read without running anything. Raises DataError."""
    return read_weights(io.BytesIO(data), where)


def load_state(network: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Put tensors into a network. Raises DataError where they do not fit."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{where}: the weights do not fit the network ({first_line(error)})") from None
