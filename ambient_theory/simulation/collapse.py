"""Does W1 collapse on the theory's effective size, and does it fail to where it should?

On the hard families the risk of a mixture should depend on the effective size alone (equal-n_l transfer): the curve is
learned from the samples that are all clean, and predicts the mixtures, which it has not seen. On well separated atoms
the same prediction must fail (n_l throws the benefit of noisy samples away): the negative control. Reads rows only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.simulation.slopes import group_rows

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
CONTROL = "mean-only"
LEARNED_ON = "clean"


def effective_axis(family: str) -> str:
    """The effective size that counts for a family: n_d for the weak subspace, else n_l."""
    return "n_d" if family in ("pca-hard", "pca-envelope") else "n_l"


def predicted_at_equal(axis: str, reference: Sequence[Row], rows: Sequence[Row]) -> Floats:
    """W1 of `rows` by the curve of `reference` at the same `axis`: straight lines in (log x, log W1), NaN outside."""
    x = np.array([r[axis] for r in reference], dtype=float)
    order = np.argsort(x)
    w1 = np.array([r["w1_mean"] for r in reference], dtype=float)
    at = np.array([r[axis] for r in rows], dtype=float)
    return np.exp(np.interp(np.log(at), np.log(x[order]), np.log(w1[order]), left=np.nan, right=np.nan))


def transfer_errors(axis: str, reference: Sequence[Row], rows: Sequence[Row]) -> Floats:
    """|log (predicted / measured)| of the rows that the reference curve covers."""
    if not rows:
        return np.zeros(0)
    ratio = np.abs(np.log(predicted_at_equal(axis, reference, rows) / np.array([r["w1_mean"] for r in rows])))
    return ratio[np.isfinite(ratio)]


@dataclass(frozen=True)
class Collapse:
    """Do the mixes lie on one curve? Median |log W1 ratio| to the clean mix's curve against the effective size `axis`,
    and against n."""

    family: str
    k: int
    d: int
    estimator: str
    weights: str
    points: int
    axis: str
    spread_effective: float
    spread_n: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def collapse_table(rows: Sequence[Row]) -> list[Collapse]:
    """Distance of every mix from the clean mix's curve, for each estimator with three clean sizes."""
    groups = group_rows(rows)
    out = []
    for (family, k, d, mix, estimator, weights), base in groups.items():
        if mix != LEARNED_ON or len(base) < 3 or estimator == CONTROL:
            continue
        same = (family, k, d, estimator, weights)
        others = [r for (f, kk, dd, m, e, w), g in groups.items() if (f, kk, dd, e, w) == same and m != mix for r in g]
        axis = effective_axis(family)
        effective, raw = transfer_errors(axis, base, others), transfer_errors("n", base, others)
        if not len(effective):
            continue
        spread = float(np.median(effective))
        spread_n = float(np.median(raw)) if len(raw) else math.nan
        if spread < 0.1:
            words = f"mixes collapse onto one curve in {axis}" + (" and not in n" if spread_n > 2 * spread else "")
        else:
            words = f"mixes do not collapse in {axis}: it is not what counts here"
        out.append(Collapse(family, k, d, estimator, weights, len(effective), axis, spread, spread_n, words))
    return out


@dataclass(frozen=True)
class SimulationPanel:
    """One family at one k and d.

    axis: the effective size. lines: rows by (mix, estimator, weights), each sorted by n. estimator: the one that is
    tested, the most frequent but the one-atom control. n, effective, w1, predicted: (R,) of its rows, all mixes;
    predicted is NaN for clean rows and outside the learned range. scatter: rms of log W1 about one smooth curve
    (quadratic in log x) for x = n and x = `axis`. transfer: median and 95 % quantile of |log(predicted/measured)|.
    """

    dataset: str
    k: int
    d: int
    family: str
    axis: str
    lines: Mapping[tuple[str, str, str], Sequence[Row]]
    estimator: str
    mixes: tuple[str, ...]
    n: Floats
    effective: Floats
    w1: Floats
    predicted: Floats
    scatter: dict[str, float]
    transfer: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "k": self.k,
            "d": self.d,
            "family": self.family,
            "estimator": self.estimator,
            "cells": sum(map(len, self.lines.values())),
            "rms_log_scatter": self.scatter,
            "curve_learned_on": "all-clean samples",
            "transfer_abs_log_ratio": None
            if self.transfer is None
            else {"median": self.transfer[0], "q95": self.transfer[1]},
        }


def panels(rows: Sequence[Row]) -> list[SimulationPanel]:
    """One panel for each simulated family, hard ones first."""
    groups: dict[tuple[str, str, int, int], list[Row]] = {}
    for r in rows:
        if r["w1_mean"] > 0:
            groups.setdefault((dataset_name(r), r["family"], r["k"], r["d"]), []).append(r)
    found = [_panel(*key, group) for key, group in groups.items()]
    return sorted(found, key=lambda p: ("hard" not in p.family, p.d, abs(p.k - 2), p.dataset))


def dataset_name(row: Row) -> str:
    """What the records of a row call their data set."""
    return row.get("dataset") or f"gmm-k{row['k']}-{row['family']}" + (f"-d{row['d']}" if row["d"] > 1 else "")


def _panel(dataset: str, family: str, k: int, d: int, rows: Sequence[Row]) -> SimulationPanel:
    axis = effective_axis(family)
    lines = {key[3:]: group for key, group in group_rows(rows).items()}
    estimators = [r["estimator"] for r in rows]
    real = [e for e in estimators if e != CONTROL] or estimators
    main = max(dict.fromkeys(real), key=real.count)
    order = sorted((key for key in lines if key[1] == main), key=lambda key: key[0])
    shown = [r for key in order for r in lines[key]]
    w1 = np.array([r["w1_mean"] for r in shown], dtype=float)
    n, effective = (np.array([r[x] for r in shown], dtype=float) for x in ("n", axis))
    pure = [r for r in shown if r["mix"] == LEARNED_ON]
    mixed = np.array([r["mix"] != LEARNED_ON for r in shown])
    predicted = np.full(len(shown), np.nan)
    transfer = None
    if len(pure) >= 2 and mixed.any():
        unseen = [r for r in shown if r["mix"] != LEARNED_ON]
        predicted[mixed] = predicted_at_equal(axis, pure, unseen)
        errors = transfer_errors(axis, pure, unseen)
        if len(errors):
            transfer = (float(np.median(errors)), float(np.quantile(errors, 0.95)))
    return SimulationPanel(
        dataset=dataset,
        k=k,
        d=d,
        family=family,
        axis=axis,
        lines=lines,
        estimator=main,
        mixes=tuple(r["mix"] for r in shown),
        n=n,
        effective=effective,
        w1=w1,
        predicted=predicted,
        scatter={"n": _scatter(n, w1), axis: _scatter(effective, w1)},
        transfer=transfer,
    )


def _scatter(x: Floats, w: Floats) -> float:
    """rms residual of log w about a quadratic in log x."""
    lx, lw = np.log(x), np.log(w)
    degree = min(2, len(np.unique(lx)) - 1)
    return float(np.sqrt(np.mean((lw - np.polyval(np.polyfit(lx, lw, degree), lx)) ** 2)))
