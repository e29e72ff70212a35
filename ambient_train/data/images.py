"""Pixels as bytes, and pictures of many images in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ambient_theory.shared.errors import DataError


def save_grid(images: np.ndarray, path: Path, columns: int | None = None, scale: int | None = None) -> None:
    """Images uint8 [n, C, H, W] as one PNG grid; small ones are enlarged by whole factors to about 48 pixels."""
    n, c, h, w = images.shape
    columns = columns or max(1, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    scale = scale or max(1, 48 // h)
    canvas = np.full((rows * (h * scale + 2) + 2, columns * (w * scale + 2) + 2, c), 255, np.uint8)
    for k, image in enumerate(images):
        y, x = 2 + (k // columns) * (h * scale + 2), 2 + (k % columns) * (w * scale + 2)
        canvas[y : y + h * scale, x : x + w * scale] = image.transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas[:, :, 0] if c == 1 else canvas).save(path)


def to_uint8(images: npt.ArrayLike | torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float images in [-1, 1] -> uint8: `round(clip(127.5 x + 127.5, 0, 255))`; uint8 passes through.

    Values outside [-1, 1] are clipped. Raises DataError on NaN or infinity: a diverged model has no score.
    """
    if isinstance(images, torch.Tensor):
        images = images.detach().to("cpu")
        images = images.float().numpy() if images.is_floating_point() else images.numpy()
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(f"images must be uint8, or floats in [-1, 1], not {array.dtype}")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        raise DataError(f"{bad} of {len(array)} images hold NaN or infinity: the model that made them has diverged")
    return np.rint(np.clip(array * 127.5 + 127.5, 0, 255)).astype(np.uint8)
