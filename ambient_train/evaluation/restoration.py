"""How well noisy images were restored, where their clean originals are known, beside filters that know no images.

Peak signal-to-noise ratio in decibels of an image whose pixels span [-1, 1], a range of 2:

    PSNR = 10 log10(4 / mean of (x_hat - x)^2),     of a noisy image 20 log10(2/sigma_n) on average.

Nothing is clipped. An interval is judged by how many originals it covers: a pixel whose interval is calibrated lies in
the 90 % interval in 90 of 100 cases, whatever is known of the noisy image, so also among pixels restored to the same
intensity (but not among pixels whose *original* has it). `spread` is the squared error of the posterior mean over the
variance of the samples, 1 if they are calibrated. Standard errors are over images.

The Wiener filter takes the power spectrum of the noisy images minus that of their noise, sigma_i^2 lambda(f) of mean
sigma_i^2 over all frequencies (lambda = 1: white),

    S(f) = max(mean_i (|F(y_i - m)|^2/d - sigma_i^2 lambda), 0),
    x_hat = m + F^-1[S/(S + sigma_i^2 lambda) F(y_i - m)],

m the mean image, d the pixels of a channel: the best linear filter of stationary images in stationary noise, learned
from noisy ones alone. Noise that differs from pixel to pixel is not stationary, and non-local means know white noise
only: what would not know the noise is left out.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]
Levels = npt.NDArray[np.floating]

RANGE = 2.0
HALF_GREY = 1 / 255
"""Half the distance of two grey levels of 8 bits, in units of [-1, 1]."""
BINS = 5
LIBRARY = "scikit-image"
WIENER, NL_MEANS = "Wiener filter", f"non-local means ({LIBRARY})"
CANDIDATES = (
    "noisy image",
    WIENER,
    NL_MEANS,
    "posterior mean",
    "mean of samples",
    "one sample",
)
"""What is scored beside each other."""


def psnr(restored: Images, originals: Images) -> npt.NDArray[np.float64]:
    """PSNR of each image [n] in decibels; infinite where an image is restored exactly."""
    error = (restored.astype(np.float64) - originals).reshape(len(originals), -1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(RANGE**2 / np.mean(error**2, axis=1))


def ssim(restored: Images, originals: Images) -> npt.NDArray[np.float64] | None:
    """Structural similarity of each image [n] (Wang et al. 2004) by scikit-image; None where that is not installed.

    The window has 7 pixels a side, or as many as fit, an odd number of them.
    """
    metrics = _library("metrics")
    if metrics is None:
        return None
    side = min(7, *originals.shape[-2:])
    return np.array(
        [
            metrics.structural_similarity(a, b, win_size=side - (side % 2 == 0), data_range=RANGE, channel_axis=0)
            for a, b in zip(restored, originals, strict=True)
        ]
    )


def nl_means(noisy: Images, sigma_n: Levels) -> Images | None:
    """Non-local means (Buades et al. 2005) with the known noise, by scikit-image; None where that is not installed."""
    restoration = _library("restoration")
    if restoration is None:
        return None
    out = np.empty_like(noisy)
    for k, (image, sigma) in enumerate(zip(noisy, sigma_n, strict=True)):
        grey = len(image) == 1  # an image without a channel axis: a single channel comes out as flat otherwise
        found = restoration.denoise_nl_means(
            image[0] if grey else image,
            patch_size=3,
            patch_distance=5,
            h=0.8 * float(sigma),
            sigma=float(sigma),
            channel_axis=None if grey else 0,
        )
        out[k] = found[None] if grey else found
    return out


def _library(part: str) -> Any:
    try:
        return importlib.import_module(f"skimage.{part}")
    except ImportError:
        return None


@dataclass(frozen=True, eq=False)
class Wiener:
    """The filter of this module. mean: [C, H, W]. power: S(f), [C, H, W//2 + 1]. spectrum: lambda(f), [1 or C, H,
    W//2 + 1], or 1 for white noise."""

    mean: npt.NDArray[np.float64]
    power: npt.NDArray[np.float64]
    spectrum: npt.NDArray[np.floating] | float = 1.0

    @classmethod
    def of(
        cls,
        noisy: Images,
        sigma_n: Levels,
        spectrum: npt.NDArray[np.floating] | float = 1.0,
        block: int = 1024,
    ) -> Wiener:
        """Learned from images [n, C, H, W] with noise of level sigma_n [n] each; clean ones (0) help too."""
        mean = noisy.mean(axis=0, dtype=np.float64)
        size = math.prod(noisy.shape[-2:])
        power = np.zeros_like(np.fft.rfft2(mean), dtype=np.float64)
        for start in range(0, len(noisy), block):
            part = slice(start, start + block)
            seen = np.abs(np.fft.rfft2(noisy[part] - mean)) ** 2 / size
            power += np.sum(seen - _image(sigma_n[part]) ** 2 * spectrum, axis=0)
        return cls(mean, np.maximum(power / len(noisy), 0), spectrum)

    def __call__(self, noisy: Images, sigma_n: Levels) -> Images:
        """x_hat of images [n, C, H, W] with levels sigma_n [n] > 0."""
        total = self.power + _image(sigma_n) ** 2 * self.spectrum
        gain = np.divide(self.power, total, out=np.ones_like(total), where=total > 0)
        filtered = np.fft.irfft2(gain * np.fft.rfft2(noisy - self.mean), s=noisy.shape[-2:])
        return (self.mean + filtered).astype(np.float32)


@dataclass
class Tally:
    """Scores, gathered block by block; `to_dict` says what they are on average.

    wiener: of the whole set; None where no spectrum says what its noise is. promised: probability with which the
    intervals should cover. eight_bits: the originals were rounded to grey levels, so an interval is also judged with
    half a grey level more on each side.
    """

    wiener: Wiener | None
    promised: float
    eight_bits: bool
    sigma_n: list[Levels] = field(default_factory=list)
    ratios: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    similarities: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    covered: dict[str, list[npt.NDArray[np.float64]]] = field(default_factory=dict)
    spreads: list[npt.NDArray[np.float64]] = field(default_factory=list)
    bins: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, BINS)))

    def add(self, noisy: Images, sigma_n: Levels, originals: Images, restored: Mapping[str, Images]) -> None:
        """A block of images [n, C, H, W]. restored: `images` and, with samples, sample, sample_mean, std, q05, q95."""
        wiener = None if self.wiener is None else self.wiener(noisy, sigma_n)
        filtered = (noisy, wiener, None if self.left_out else nl_means(noisy, sigma_n))
        own = (restored["images"], restored.get("sample_mean"), restored.get("sample"))
        self.sigma_n.append(np.asarray(sigma_n, np.float64))
        for name, images in zip(CANDIDATES, (*filtered, *own), strict=True):
            if images is None:
                continue
            self.ratios.setdefault(name, []).append(psnr(images, originals))
            if (similarity := ssim(images, originals)) is not None:
                self.similarities.setdefault(name, []).append(similarity)
        if "q05" in restored:
            self._add_intervals(originals, restored)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Filters that would not know the noise."""
        if self.wiener is None:
            return (WIENER, NL_MEANS)
        return () if isinstance(self.wiener.spectrum, float) else (NL_MEANS,)

    def _add_intervals(self, originals: Images, restored: Mapping[str, Images]) -> None:
        low, high = restored["q05"], restored["q95"]
        kinds = {"exact": _inside(originals, low, high, 0.0)}
        if self.eight_bits:
            kinds["within half a grey level"] = _inside(originals, low, high, HALF_GREY)
        for name, inside in kinds.items():
            self.covered.setdefault(name, []).append(inside.reshape(len(inside), -1).mean(axis=1))
        error = (restored["images"].astype(np.float64) - originals) ** 2
        variance = restored["std"].astype(np.float64) ** 2
        self.spreads.append(np.stack([x.reshape(len(x), -1).mean(axis=1) for x in (error, variance)], axis=1))
        place = np.clip((restored["images"] + 1) / 2 * BINS, 0, BINS - 1).astype(int).ravel()
        for row, inside in zip((1, 2), (kinds["exact"], list(kinds.values())[-1]), strict=True):
            self.bins[row] += np.bincount(place, weights=inside.ravel(), minlength=BINS)
        self.bins[0] += np.bincount(place, minlength=BINS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: PSNR (and SSIM) of each candidate, by level where there are a few, coverage and spread."""
        levels = np.concatenate(self.sigma_n)
        out: dict[str, Any] = {"images": len(levels), "psnr_db": {k: _mean(v) for k, v in self.ratios.items()}}
        if self.left_out:
            out["left_out"] = list(self.left_out)
        if self.similarities:
            out["ssim"] = {k: _mean(v) for k, v in self.similarities.items()}
        distinct = np.unique(levels)
        if 1 < len(distinct) <= 8:
            columns = {name: np.concatenate(parts) for name, parts in self.ratios.items()}
            out["psnr_db_by_level"] = [
                {"sigma_n": float(s), **{name: _mean([column[levels == s]]) for name, column in columns.items()}}
                for s in distinct
            ]
        if self.covered:
            out["coverage"] = {
                "promised": self.promised,
                **{name: _mean(parts) for name, parts in self.covered.items()},
                "by_restored_intensity": self._by_intensity(),
            }
            error, variance = np.concatenate(self.spreads).mean(axis=0)
            out["spread"] = float(error / variance) if variance > 0 else None
        return out

    def _by_intensity(self) -> list[dict[str, Any]]:
        edges = np.linspace(-1, 1, BINS + 1)
        rows = []
        for k in range(BINS):
            pixels = int(self.bins[0, k])
            row: dict[str, Any] = {"from": float(edges[k]), "to": float(edges[k + 1]), "pixels": pixels}
            for name, total in zip(self.covered, self.bins[1 : 1 + len(self.covered), k], strict=True):
                row[name] = float(total / pixels) if pixels else None
            rows.append(row)
        return rows


def _inside(originals: Images, low: Images, high: Images, slack: float) -> npt.NDArray[np.float64]:
    return ((low - slack <= originals) & (originals <= high + slack)).astype(np.float64)


def _mean(parts: list[npt.NDArray[np.float64]]) -> dict[str, float | None]:
    """Mean over images and its standard error; None where it is not finite, as for an image restored exactly."""
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        return {"value": None, "stderr": None}
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "stderr": error}


def _image(sigma_n: Levels) -> npt.NDArray[np.float64]:
    return np.asarray(sigma_n, np.float64).reshape(-1, 1, 1, 1)
