"""Slopes of log W1 against log n with intervals, and the verdict in words.

What a slope can show is limited: on `hard` and `pca-hard` instances the scale of the law is tied to n_l or n_d, so the
right slope is built in and even the one-atom estimator has it. Informative there is how far an estimator stays below
`mean-only`; the slope itself is informative on `separated`, `pca-strong`, `fixed` and `envelope`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.bounds.sizes import lowdim_exponent

Floats = NDArray[np.float64]
Row = Mapping[str, Any]
#: How far a slope may be from the prediction for "within 0.02": a correct estimator is steeper at finite n.
TOLERANCE = 0.02
#: C_d and C_l of the two-term bound by family and k, as `--calibrate --family F` fits them; nobody knows others.
CONSTANTS = {("envelope", 2): (0.54, 0.74), ("hard", 2): (0.54, 0.74), ("pca-envelope", 2): (0.91, 0.46)}


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of log W1 on log n with a 95 % interval, and `last`, the slope of the largest half.

    theory: the exponent that the theory gives for the family (None where it gives none). beats_mean_only: the
    geometric mean of W1 / W1(mean-only) over the cells, with interval (None without the control, and at k = 1,
    where the control *is* the estimator).
    """

    family: str
    k: int
    d: int
    mix: str
    estimator: str
    weights: str
    points: int
    slope: float
    low: float
    high: float
    last: float
    theory: float | None
    against_mean_only: tuple[float, float, float] | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def group_rows(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by (family, k, d, mix, estimator, weights), each sorted by n."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[c] for c in ("family", "k", "d", "mix", "estimator", "weights"))
        groups.setdefault(key, []).append(row)
    return {key: sorted(group, key=lambda r: r["n"]) for key, group in groups.items()}


def theory_slope(family: str, k: int) -> float | None:
    """-1/2 for separated and strong instances, -1/(4k-2) on the worst case, -1/4 for the weak subspace."""
    if family in ("separated", "pca-strong"):
        return -0.5
    if family in ("hard", "envelope"):
        return -lowdim_exponent(k)
    if family in ("pca-hard", "pca-envelope"):
        return -0.25
    return None


def two_term_slope(group: Sequence[Row]) -> float | None:
    """The slope of `C_d (d/n_d)^(1/4) + C_l n_l^(-1/(4k-2))` over the sizes of these rows, with `CONSTANTS`: what the
    bound says in d >= 2, where neither of its terms is alone. None where nobody has fitted them."""
    key = group[0]["family"], group[0]["k"]
    if key not in CONSTANTS:
        return None
    c_d, c_l = CONSTANTS[key]
    x = np.log([r["n"] for r in group])
    low = [r["n_l"] ** -lowdim_exponent(r["k"]) for r in group]
    value = [c_d * (r["d"] / r["n_d"]) ** 0.25 + c_l * term for r, term in zip(group, low, strict=True)]
    return float(_fit(x, np.log(value)))


def _bootstrap_means(group: Sequence[Row], rng: np.random.Generator, draws: int) -> Floats:
    """Mean W1 of each cell redrawn from its sampling law N(mean, se^2), (draws, cells), kept positive."""
    mean = np.array([r["w1_mean"] for r in group])
    se = np.array([r["w1_se"] for r in group])
    return np.maximum(mean + se * rng.standard_normal((draws, len(group))), mean * 1e-3)


def _fit(x: Floats, y: Floats) -> Floats:
    centred = x - x.mean()
    return (y - y.mean(axis=-1, keepdims=True)) @ centred / (centred @ centred)


def slope_table(rows: Sequence[Row], *, seed: int = 0, draws: int = 2000) -> list[Slope]:
    """One slope for each (family, k, d, mix, estimator, weights) with at least three sample sizes.

    Intervals: parametric bootstrap over replicates (each cell's mean redrawn with its standard error).
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0x510BE])))
    groups = group_rows(rows)
    out = []
    for key, group in groups.items():
        family, k, d, mix, estimator, weights = key
        usable = [r for r in group if r["w1_mean"] > 0]
        if len(usable) < 3:
            continue
        x = np.log([r["n"] for r in usable])
        y = np.log([r["w1_mean"] for r in usable])
        boot = _fit(x, np.log(_bootstrap_means(usable, rng, draws)))
        low, high = np.quantile(boot, [0.025, 0.975])
        half = max(3, (len(x) + 1) // 2)
        control = groups.get((family, k, d, mix, "mean-only", "-"))
        against = None
        if control is not None and estimator != "mean-only" and k > 1:
            against = _against(usable, control, rng, draws)
        slope = float(_fit(x, y))
        both = d > 1 and k > 1 and family in ("hard", "envelope", "pca-envelope")
        theory = two_term_slope(usable) if both else theory_slope(family, k)
        out.append(
            Slope(
                family, k, d, mix, estimator, weights, len(x), slope, float(low), float(high),
                float(_fit(x[-half:], y[-half:])), theory, against,
                _verdict(family, estimator, k, slope, float(low), float(high), theory, against, both),
            )
        )  # fmt: skip
    return out


def _against(
    group: Sequence[Row], control: Sequence[Row], rng: np.random.Generator, draws: int
) -> tuple[float, float, float] | None:
    by_n = {r["n"]: r for r in control}
    pairs = [(r, by_n[r["n"]]) for r in group if r["n"] in by_n and by_n[r["n"]]["w1_mean"] > 0]
    if not pairs:
        return None
    mine, other = [p[0] for p in pairs], [p[1] for p in pairs]
    ratio = np.log(_bootstrap_means(mine, rng, draws)) - np.log(_bootstrap_means(other, rng, draws))
    value = float(np.mean([math.log(a["w1_mean"] / b["w1_mean"]) for a, b in pairs]))
    low, high = np.quantile(ratio.mean(axis=-1), [0.025, 0.975])
    return math.exp(value), math.exp(float(low)), math.exp(float(high))


def _verdict(
    family: str,
    estimator: str,
    k: int,
    slope: float,
    low: float,
    high: float,
    theory: float | None,
    against: tuple[float, float, float] | None,
    two_terms: bool,
) -> str:
    if estimator == "mean-only":
        built_in = family in ("hard", "pca-hard")
        return "negative control" + (": the slope is built into the instance" if built_in and k > 1 else "")
    words = []
    if theory is not None:
        if low <= theory <= high:
            words.append("slope as predicted")
        elif abs(slope - theory) <= TOLERANCE:
            side = "steeper" if slope < theory else "flatter"
            words.append(f"slope within {TOLERANCE:g} of the prediction, and {side} than it beyond its interval")
        elif slope < theory:
            words.append("steeper than the rate (the rate is an upper bound)")
        else:
            words.append("flatter than the rate: not yet in its regime, or bias")
    elif two_terms:
        words.append(
            f"two terms, of slopes -0.25 and {-lowdim_exponent(k):.3g}: their constants are fitted for k = 2 only, so "
            "that no slope is predicted"
        )
    if against is not None:
        if against[2] < 0.8:
            words.append(f"clearly beats one atom (risk at most {math.ceil(against[2] * 20) / 20:.2f} of its)")
        elif against[2] < 1:
            words.append("beats one atom barely")
        else:
            words.append("does not beat one atom: the slope says nothing")
    return "; ".join(words) or "no rate is claimed for this family"
