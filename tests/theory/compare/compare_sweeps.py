"""Synthetic sweeps with a known worth c, for the tests of `ambient_theory.compare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ambient_theory.bounds.sizes import n_l
from ambient_theory.shared.records import Record

CLEAN = (60, 600, 6_000, 60_000)
BASES = (600, 6_000)
NOISY = (6_000, 54_000)
TRUTH = {0.2: 0.6, 0.6: 0.15}


def record(
    n_clean: int, n_noisy: int, sigma: float | None, value: float, seed: int | None = 0, **changes: object
) -> Record:
    """A training record of the made-up data set."""
    fields: dict[str, object] = {
        "source": "train",
        "dataset": "made-up",
        "n_clean": n_clean,
        "n_noisy": n_noisy,
        "sigma_n": sigma,
        "metric": "fd",
        "extractor": "net:12345678",
        "value": value,
        "stderr": 0.01,
        "n_eval": 10_000,
        "seed": seed,
        "config_hash": "00000000",
        "duration_nimg": 400_000,
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def power_law(n: float) -> float:
    """E_inf + a N^-p with E_inf = .05, a = .4 at N = 6,000, p = .8."""
    return 0.05 + 0.4 * (n / 6_000) ** -0.8


def sweep(
    rng: np.random.Generator | None,
    *,
    worth: Mapping[float, float] = TRUTH,
    scatter: float = 0.06,
    seeds: int = 3,
    error: Callable[[float], float] = power_law,
    **changes: object,
) -> list[Record]:
    """Clean-only at four sizes, mixtures at two clean by two noisy sizes; log-normal scatter over seeds.

    rng None: no scatter at all, every seed gives the curve's value.
    """
    cells: list[tuple[int, int, float | None]] = [(n, 0, None) for n in CLEAN]
    cells += [(b, n, s) for s in worth for b in BASES for n in NOISY]
    out = []
    for n_clean, n_noisy, sigma in cells:
        index = n_clean + (worth[sigma] * n_noisy if sigma is not None else 0.0)
        for seed in range(seeds):
            noise = scatter * rng.standard_normal() if rng is not None else 0.0
            out.append(record(n_clean, n_noisy, sigma, error(index) * math.exp(noise), seed, **changes))
    return out


MIXES = {"clean": (1.0, 0.0), "noisy": (0.0, 1.0), "10:90": (0.1, 0.9)}


def simulated(k, family, risk, *, scatter=0.01, estimator="dmm", seed=0):
    """W1 records whose error is `risk(n_clean, n_noisy, n_l)` at s = 1 and s = 2."""
    rng = np.random.default_rng(seed)
    out = []
    for mix, (a, b) in MIXES.items():
        for n in np.logspace(3, 7, 9).astype(int):
            n_clean, n_noisy = round(a * n), round(b * n)
            size = n_l(k, [1.0, 2.0], [n_clean, n_noisy])
            value = risk(n_clean, n_noisy, size) * math.exp(scatter * rng.standard_normal())
            extra = {"k": k, "d": 1, "family": family, "mix": mix, "n_l": size, "estimator": estimator}
            changes = {"source": "simulate", "dataset": f"gmm-k{k}-{family}", "metric": "w1", "extractor": "none"}
            out.append(record(n_clean, n_noisy, 2.0 if n_noisy else None, value, 0, extra=extra, **changes))
    return out
