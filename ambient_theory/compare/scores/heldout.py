"""Prediction of cells that the fit has not seen.

Three splits: a random half of the cells (many draws), small total sizes to large ones, low noise to high noise (only a
law can price a level it has not seen). The score of a cell is `|log(predicted / measured)|` of its mean over seeds;
a perfect curve still scores about .67 standard errors in the median, which is given beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ambient_theory.bounds.laws import LAWS
from ambient_theory.compare.cells.tables import Table
from ambient_theory.compare.fitting import least_squares
from ambient_theory.compare.fitting.curves import Curve, FixedWorth, FreeWorth, LawWorth, SingleIndex, Units
from ambient_theory.compare.fitting.fits import residuals_of, slopes_of, two_term_curves, units_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
RANDOM_HALVES = 20


@dataclass(frozen=True)
class HeldOut:
    """Errors of one curve on one split. median, upper: median and 95 % quantile of |log ratio| over unseen cells.

    noise: the median that seed scatter alone gives to a perfect curve. pairs: (measured, predicted) of unseen cells.
    """

    curve: str
    split: str
    tested: int
    median: float
    upper: float
    noise: float | None
    pairs: tuple[tuple[float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "pairs"}


def candidates(noise_levels: Sequence[float], units: Units) -> dict[str, Curve]:
    """Every curve that is tried: free c, laws, the two-term shape, and the two controls."""
    curves: dict[str, Curve] = {"free c at each σ": SingleIndex(FreeWorth(noise_levels), units)}
    if any(s > 0 for s in noise_levels):
        curves |= {law.label: SingleIndex(LawWorth(law.q, noise_levels), units) for law in LAWS.values()}
        curves |= two_term_curves(2, noise_levels, units)
    curves["naive n (c = 1)"] = SingleIndex(FixedWorth(1.0), units)
    curves["clean only (c = 0)"] = SingleIndex(FixedWorth(0.0), units)
    return curves


def _score(name: str, split: str, curve: Curve, table: Table, scale: str, seen: Mask, tested: Mask) -> HeldOut | None:
    """Fit on `seen` (S, R), predict `tested` (S, R), all splits in one batch."""
    starts = curve.starts()
    splits, count = len(seen), len(starts)
    weights = np.repeat(seen.astype(float), count, axis=0)
    batch = np.tile(starts, (splits, 1))
    found = least_squares.solve(
        residuals_of(curve, table, scale, weights),
        batch,
        curve.lower,
        curve.upper,
        jacobian=slopes_of(curve, table, scale, weights),
        iterations=40,
        tolerance=1e-7,
    )
    best = found.sse.reshape(splits, count).argmin(axis=1) + np.arange(splits) * count
    predicted = curve.predict(found.theta[best], table.n_clean, table.n_noisy, table.sigma_n)
    measured = np.broadcast_to(np.exp(table.y), predicted.shape)
    chosen_p, chosen_m = predicted[tested], measured[tested]
    if not len(chosen_p):
        return None
    ratio = np.abs(np.log(chosen_p / chosen_m))
    noise = None
    if table.dof:
        se = np.broadcast_to(np.sqrt(table.variance / table.seeds), predicted.shape)[tested]
        noise = float(np.median(se) * float(ndtri(0.75)))
    return HeldOut(
        name,
        split,
        len(ratio),
        float(np.median(ratio)),
        float(np.quantile(ratio, 0.95)),
        noise,
        tuple((float(m), float(p)) for m, p in zip(chosen_m[:200], chosen_p[:200], strict=True)),
    )


def _random_halves(table: Table, noise_levels: Sequence[float], rng: np.random.Generator) -> Mask:
    """Halves that keep two clean-only sizes and every noise level in the seen part, up to RANDOM_HALVES of them."""
    half = (table.size + 1) // 2
    clean = table.n_noisy == 0
    found: list[Mask] = []
    for _ in range(400):
        mask = np.zeros(table.size, bool)
        mask[rng.permutation(table.size)[:half]] = True
        levels = {float(s) for s in table.sigma_n[mask & ~clean]}
        if np.sum(mask & clean) >= 2 and levels >= set(noise_levels):
            found.append(mask)
        if len(found) == RANDOM_HALVES:
            break
    return np.array(found, dtype=bool).reshape(len(found), table.size)


def held_out(table: Table, scale: str, seed: int = 0) -> list[HeldOut]:
    """All curves on all splits that the table allows. Only tables of positive scores (log scale) are tried."""
    if scale != "log":
        return []
    clean = table.n_noisy == 0
    noise_levels = sorted({float(s) for s in table.sigma_n[~clean]})
    if not noise_levels:
        return []
    curves = candidates(noise_levels, units_of(table, scale))
    out: list[HeldOut | None] = []
    everywhere: Callable[[Curve], bool] = lambda curve: True  # noqa: E731
    law_only: Callable[[Curve], bool] = lambda curve: not isinstance(getattr(curve, "worth", None), FreeWorth)  # noqa: E731

    splits: list[tuple[str, Mask, Callable[[Curve], bool]]] = []
    halves = _random_halves(table, noise_levels, np.random.default_rng(seed))
    if len(halves):
        splits.append(("random half", halves, everywhere))
    total = table.n_clean + table.n_noisy
    small = total <= np.median(total)
    covered = {float(s) for s in table.sigma_n[small & ~clean]} >= set(noise_levels)
    if np.sum(small & clean) >= 2 and not np.all(small):
        splits.append(("small to large n", small[None, :], everywhere if covered else law_only))
    if len(noise_levels) > 1:
        low = clean | (table.sigma_n < noise_levels[-1])
        splits.append(("low to high σ", low[None, :], law_only))
    for name, seen, allowed in splits:
        for label, curve in curves.items():
            if allowed(curve) and np.min(seen.sum(axis=1)) >= len(curve.names):
                out.append(_score(label, name, curve, table, scale, seen, ~seen))
    return [h for h in out if h is not None]
