"""Synthetic sweeps of denoising errors by level with a known law, for the tests of worth by level.

At level s the clean-only error is E(s; n) = V(s) (1 + b(s) (n/100)^-p), V(s) = s0^2 s^2/(s0^2 + s^2), the Bayes error
of a Gaussian of variance s0^2. A model's log error scatters about it with deviation `scatter`, correlated between
levels by exp(-|k - l|/3): a seed that is good at one level is good at its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ambient_theory.shared.records import Record

LEVELS = (0.02, 0.06, 0.15, 0.35, 0.8, 2.0)
CLEAN = (50, 100, 200, 400, 800, 1600)
MIXED = ((50, 200), (100, 200), (100, 1000), (200, 200), (200, 1000), (400, 1000))
SIGMA = 0.25
S0 = 0.5

Size = Callable[[float, int, int, float], float]
"""(level, n_clean, n_noisy, sigma_n) -> equivalent clean images."""


def one_good(c: float) -> Size:
    """One additive worth at every level."""
    return lambda level, n_clean, n_noisy, sigma: n_clean + c * n_noisy


def two_goods(above: float, gain: float, half: float) -> Size:
    """Above the noise additive; below n_clean (1 + gain r/(r + half)), r = n_noisy/n_clean."""

    def size(level: float, n_clean: int, n_noisy: int, sigma: float) -> float:
        if level > sigma:
            return n_clean + above * n_noisy
        r = n_noisy / n_clean
        return n_clean * (1 + gain * r / (r + half))

    return size


def formula(level: float, n_clean: int, n_noisy: int, sigma: float) -> float:
    """V/(V + v) above the noise, nothing below."""
    if level <= sigma:
        return n_clean
    v = sigma**2 * level**2 / (level**2 - sigma**2)
    bayes = bayes_error(level)
    return n_clean + bayes / (bayes + v) * n_noisy


def bayes_error(level: float) -> float:
    return S0**2 * level**2 / (S0**2 + level**2)


def error(level: float, n: float) -> float:
    """Error of a model of n clean images."""
    power, part = 0.6 + 0.1 * math.log10(level), 0.5 + 0.1 * math.log10(level)
    return bayes_error(level) * (1 + part * (n / 100) ** -power)


def record(n_clean: int, n_noisy: int, sigma: float | None, level: float, value: float, seed: int, **changes: object):
    """One denoise record of the made-up data set."""
    fields: dict[str, object] = {
        "source": "train",
        "dataset": "made-up",
        "n_clean": n_clean,
        "n_noisy": n_noisy,
        "sigma_n": sigma,
        "metric": "denoise",
        "level": level,
        "extractor": "none",
        "value": value,
        "stderr": 0.02 * value,
        "n_eval": 1000,
        "seed": seed,
        "config_hash": "00000000",
        "duration_nimg": 131_072,
        "checkpoint": "last",
        "evaluation": {"seed": 7, "denoise": 1000},
        "extra": {"images": "abcd1234", "dim": 64},
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def noise(rng: np.random.Generator, scatter: float, levels: int) -> np.ndarray:
    """Log scatter of one seed over the levels, correlated between neighbours."""
    distance = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels)))
    return scatter * np.linalg.cholesky(np.exp(-distance / 3)) @ rng.standard_normal(levels)


def level_sweep(
    rng: np.random.Generator | None,
    size: Size,
    *,
    scatter: float = 0.015,
    exponent: float = 0.0,
    seeds: int = 4,
    levels: Sequence[float] = LEVELS,
    clean: Sequence[int] = CLEAN,
    mixed: Sequence[tuple[int, int]] = MIXED,
    sigmas: Sequence[float] = (SIGMA,),
    **changes: object,
) -> list[Record]:
    """Records of clean-only models and of mixtures under the law `size`.

    rng None: no scatter, seeds agree. exponent: of the variance of models that count for few images, equal at 200.
    """
    cells: list[tuple[int, int, float | None]] = [(n, 0, None) for n in clean]
    cells += [(n, m, s) for s in sigmas for n, m in mixed]
    out = []
    for n_clean, n_noisy, sigma in cells:
        for seed in range(seeds):
            shift = np.zeros(len(levels)) if rng is None else noise(rng, scatter, len(levels))
            for level, by in zip(levels, shift, strict=True):
                n = float(n_clean) if sigma is None else size(level, n_clean, n_noisy, sigma)
                value = error(level, n) * math.exp(by * (n / 200) ** (-exponent / 2))
                out.append(record(n_clean, n_noisy, sigma, level, value, seed, **changes))
    return out
