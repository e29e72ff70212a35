"""Simulation panels: does W1 collapse on the theory's effective size, and does it fail to where it should?

On the hard families the risk of a mixture should depend on `n_l` alone (equal-n_l transfer): the curve is learned from
the samples that are all clean, and predicts the mixtures, which it has not seen. On well separated atoms the same
prediction must fail (n_l throws the benefit of noisy samples away): the negative control.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.shared.records import Record

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SimulationPanel:
    """One family at one k and d. Arrays over cells: n, n_l, w1, se, mix, estimator.

    scatter: rms of log W1 about one smooth curve (quadratic in log x) for x = n and x = n_l, main estimator.
    transfer: median and 95 % quantile of |log(predicted/measured)| for the mixtures, curve learned on `learned_on`.
    """

    dataset: str
    k: int
    d: int
    family: str
    estimator: str
    n: Floats
    n_l: Floats
    w1: Floats
    se: Floats
    mixes: tuple[str, ...]
    estimators: tuple[str, ...]
    scatter: dict[str, float]
    learned_on: str
    predicted: Floats
    transfer: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "k": self.k,
            "d": self.d,
            "family": self.family,
            "estimator": self.estimator,
            "cells": len(self.w1),
            "rms_log_scatter": self.scatter,
            "curve_learned_on": self.learned_on,
            "transfer_abs_log_ratio": None
            if self.transfer is None
            else {"median": self.transfer[0], "q95": self.transfer[1]},
        }


def _scatter(x: Floats, w: Floats) -> float:
    """rms residual of log w about a quadratic in log x."""
    lx, lw = np.log(x), np.log(w)
    degree = min(2, len(np.unique(lx)) - 1)
    return float(np.sqrt(np.mean((lw - np.polyval(np.polyfit(lx, lw, degree), lx)) ** 2)))


def _interpolate(x: Floats, w: Floats, at: Floats) -> Floats:
    """Straight lines in (log x, log w), NaN outside the learned range."""
    order = np.argsort(x)
    lx, lw = np.log(x[order]), np.log(w[order])
    return np.exp(np.interp(np.log(at), lx, lw, left=np.nan, right=np.nan))


def panels(records: Iterable[Record]) -> list[SimulationPanel]:
    """One panel for each simulated family, hard ones first."""
    groups: dict[tuple[str, int, int, str], list[Record]] = defaultdict(list)
    for r in records:
        if r.source == "simulate" and r.metric == "w1" and r.value > 0 and "n_l" in r.extra:
            extra = r.extra
            groups[r.dataset, int(extra.get("k", 0)), int(extra.get("d", 1)), str(extra.get("family", ""))].append(r)
    found = [_panel(*key, rows) for key, rows in groups.items()]
    return sorted(
        (p for p in found if p is not None), key=lambda p: ("hard" not in p.family, p.d, abs(p.k - 2), p.dataset)
    )


def _panel(dataset: str, k: int, d: int, family: str, rows: list[Record]) -> SimulationPanel | None:
    rows = sorted(rows, key=lambda r: (str(r.extra.get("mix")), r.n_clean + r.n_noisy))
    estimators = tuple(str(r.extra.get("estimator", "")) for r in rows)
    real = [e for e in estimators if e != "mean-only"]
    if not real:
        return None
    main = max(dict.fromkeys(real), key=real.count)
    n = np.array([r.n_clean + r.n_noisy for r in rows], dtype=float)
    n_l = np.array([float(r.extra["n_l"]) for r in rows])
    w1 = np.array([r.value for r in rows])
    se = np.array([np.nan if r.stderr is None else r.stderr for r in rows])
    mixes = tuple(str(r.extra.get("mix", "")) for r in rows)
    chosen = np.array([e == main for e in estimators])
    pure = chosen & np.array([r.n_noisy == 0 for r in rows])
    learned_on = "all-clean samples"
    predicted = np.full(len(rows), np.nan)
    transfer = None
    if np.sum(pure) >= 2 and np.any(chosen & ~pure):
        predicted[chosen & ~pure] = _interpolate(n_l[pure], w1[pure], n_l[chosen & ~pure])
        ratio = np.abs(np.log(predicted / w1))
        ratio = ratio[np.isfinite(ratio)]
        if len(ratio):
            transfer = (float(np.median(ratio)), float(np.quantile(ratio, 0.95)))
    scatter = {"n": _scatter(n[chosen], w1[chosen]), "n_l": _scatter(n_l[chosen], w1[chosen])}
    return SimulationPanel(
        dataset, k, d, family, main, n, n_l, w1, se, mixes, estimators, scatter, learned_on, predicted, transfer
    )
