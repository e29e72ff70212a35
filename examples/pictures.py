"""What the examples on noise share: decibels, and a figure of rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each image in dB, for the range of the true ones."""
    return np.asarray(20 * np.log10(np.ptp(truth)) - 10 * np.log10(((images - truth) ** 2).mean(axis=(1, 2))))


def gain_text(noisy: np.ndarray, restored: Sequence[np.ndarray], known: str) -> str:
    """A sentence on the PSNR of noisy images and of images restored with noise `known`, and as white of one level."""
    better = restored[0] - restored[1]
    return (
        f"PSNR in dB: noisy {noisy.mean():.2f}, restored {known} {restored[0].mean():.2f}, as white noise of one level "
        f"{restored[1].mean():.2f}; {known} gains {better.mean():.2f} +- {better.std() / len(better) ** 0.5:.2f} "
        f"({len(better)} images)"
    )


def figure(path: Path, rows: dict[str, np.ndarray]) -> None:
    """Rows of images, each row of one kind, on one scale of grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    low, high = min(r.min() for r in rows.values()), max(np.percentile(r, 99.8) for r in rows.values())
    columns = len(next(iter(rows.values())))
    drawn, axes = plt.subplots(len(rows), columns, figsize=(1.1 * columns + 0.8, 1.15 * len(rows)), squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, place in zip(images, line, strict=True):
            place.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
        line[0].set_ylabel(name)
    drawn.tight_layout(pad=0.3)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
