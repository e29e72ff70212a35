"""Which training next: c-optimal design of the cells that price a noisy image.

At the levels above the noise the error of a model is `E(s) = E_inf(s) + a(s) N^-p(s)`, N = n_clean + c n_noisy
(`compare.by_level.goods`). With x_k the derivatives of log E at level k by (E_inf, a, log p) of that level, in units of
the scatter of one model (more of it in models of few images, `compare.cells.blocks`), and j_k that by log c, least
squares over all cells gives log c the variance

    Var = sum_kl C_kl r_k.r_l / (sum_k r_k.r_k)^2,        r_k = j_k - x_k (x_k'x_k)^-1 x_k'j_k    (over the cells),

C the correlation between levels over seeds. One more seed of a cell adds a row to x and j; the design takes, one at a
time, the cell that lowers log (t^2 Var) most per cost (c-optimality, Elfving 1952; t is Student's quantile, which falls
with replicates). A first guess may be wrong, so the gain is averaged over an ensemble: the profile of c as the records
give it, each c with the curves that fit it best (`compare.fitting.varpro`).

Two rules hold it to what can be fitted: a mixture is chosen only where clean-only sizes, measured or chosen, enclose
its equivalent size under nine tenths of the ensemble, and where they do not yet, the clean-only size comes first; and
no cell gets more than five seeds. Where no law can be fitted the design says so and spreads (`compare.advice.spread`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.advice.spread import spread
from ambient_theory.compare.by_level.goods import Market
from ambient_theory.compare.by_level.levels import LevelTable
from ambient_theory.compare.fitting import varpro
from ambient_theory.shared.advice import Advice, Mixture, Step
from ambient_theory.shared.errors import DataError, UsageError

Floats = NDArray[np.float64]
C_RANGE = (0.003, 1.5)
"""Worths that the ensemble may hold: below, nothing is measurable; above 1, only chance."""
MEMBERS = 33
MOST_SEEDS = 5
"""Of one cell: past that another mixture tests whether they agree, at little loss."""
UNREPLICATED = 100.0
"""Student's quantile where no cell has a second seed: any replicate is worth more than any new cell."""
NOTHING = 1e4
"""Variance of log c where the cells say nothing of it."""
ENCLOSED = 0.9


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What the records allow: B worths c with weights (sum 1) and the curves [B, L] of the levels above the noise.

    deviation [L], correlation [L, L], dof: scatter of the log error of one model that counts for `typical` [L] clean
    images; one that counts for N has (N/typical)^-exponent times that variance. cells: what is trained, with seeds.
    """

    sigma: float
    c: Floats
    weight: Floats
    curves: varpro.Curves
    deviation: Floats
    correlation: Floats
    dof: int
    typical: Floats
    exponent: float
    cells: Counter[Mixture]

    @classmethod
    def of(cls, table: LevelTable, sigma: float) -> Ensemble:
        """Raises DataError where the cells cannot determine a law, or where no level lies above the noise."""
        market = Market.of(table, sigma)
        above = market.above
        if not above.any():
            raise DataError(f"{table.key.dataset}: no measured level lies above σ {sigma:g}")
        errors = market.errors.at(above)
        c = np.geomspace(*C_RANGE, MEMBERS)
        curves = varpro.fit(market.size(c[:, None]), errors)
        rise = curves.sse.sum(axis=1)
        correlation = market.correlation[np.ix_(above, above)]
        if market.dof:
            # one seed moves all levels together, so the rise counts for as many levels as are independent
            rise = (rise - rise.min()) / (correlation.sum() / len(correlation))
            weight = (1 + rise / market.dof) ** (-(market.dof + 1) / 2)
        else:
            weight = np.ones(MEMBERS)
        return cls(
            sigma=sigma,
            c=c,
            weight=weight / weight.sum(),
            curves=curves,
            deviation=market.deviation[above] if market.dof else np.full(int(above.sum()), 0.02),
            correlation=correlation,
            dof=market.dof,
            typical=market.typical[above],
            exponent=market.exponent,
            cells=Counter({Mixture(x.n_clean, x.n_noisy, x.sigma_n): len(x.seeds) for x in market.cells}),
        )

    def sizes(self, mixture: Mixture) -> Floats:
        """Equivalent clean images [B]."""
        return mixture.n_clean + self.c * mixture.n_noisy

    def rows(self, mixtures: Sequence[Mixture]) -> Floats:
        """Derivatives of log E by (E_inf, a, log p, log c) in units of the scatter, [M, B, L, 4]."""
        clean = np.array([float(m.n_clean) for m in mixtures])[:, None, None]
        noisy = self.c[:, None] * np.array([float(m.n_noisy) for m in mixtures])[:, None, None]
        size, p = clean + noisy, np.exp(self.curves.log_p)
        log_n = np.log(size / self.curves.unit)
        decay = np.exp(-p * log_n)
        error = self.curves.floor + self.curves.a * decay
        by = np.stack(
            [
                np.ones_like(error),
                decay,
                -self.curves.a * p * decay * log_n,
                -self.curves.a * p * decay * noisy / size,
            ],
            axis=-1,
        )
        scatter = self.deviation * (size / self.typical) ** (-self.exponent / 2)
        return np.asarray(by / (error * scatter)[..., None])

    def quantile(self, values: Floats, share: float) -> float:
        """Weighted quantile over the members."""
        order = np.argsort(values)
        return float(values[order][np.searchsorted(np.cumsum(self.weight[order]), share - 1e-12)])


class Information:
    """Second moments of the rows, [B, L, L, 4, 4], and what they say of log c with one more row."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self.seeds = Counter(ensemble.cells)
        rows = ensemble.rows(list(self.seeds))
        seeds = np.array([float(n) for n in self.seeds.values()])
        self.moments = np.einsum("m,mblp,mbkq->blkpq", seeds, rows, rows, optimize=True)
        self.dof = ensemble.dof

    def add(self, mixture: Mixture) -> None:
        """One more seed of a mixture."""
        row = self.ensemble.rows([mixture])[0]
        self.moments = self.moments + np.einsum("blp,bkq->blkpq", row, row)
        self.dof += self.seeds[mixture] > 0
        self.seeds[mixture] += 1

    def spread(self, rows: Floats, replicated: NDArray[np.bool_], confidence: float) -> Floats:
        """log (t^2 Var log c) [M, B] with each of the rows [M, B, L, 4] added; replicated: rows of measured cells."""
        count = self.moments.shape[1]
        own = self.moments[:, np.arange(count), np.arange(count)]
        full = own + rows[..., :, None] * rows[..., None, :]
        matrix, goal = full[..., :3, :3], full[..., :3, 3]
        scale = np.sqrt(np.einsum("...ii->...i", matrix))
        scale = np.where(scale > 0, scale, 1.0)  # the exponent of a flat curve moves nothing
        scaled = matrix / (scale[..., :, None] * scale[..., None, :]) + 1e-9 * np.eye(3)
        beta = np.linalg.solve(scaled, (goal / scale)[..., None])[..., 0] / scale
        v = np.concatenate([-beta, np.ones((*beta.shape[:-1], 1))], axis=-1)
        mine = np.sum(v * rows, axis=-1)
        cross = np.einsum("mblp,blkpq,mbkq->mblk", v, self.moments, v, optimize=True)
        cross = cross + mine[..., :, None] * mine[..., None, :]
        signal = np.einsum("mbll->mb", cross)
        scatter = np.einsum("mblk,lk->mb", cross, self.ensemble.correlation)
        variance = np.where(signal > 1e-9, scatter / np.maximum(signal, 1e-9) ** 2, NOTHING)
        t = np.array([_quantile(self.dof + bool(r), confidence) for r in replicated])
        return np.asarray(np.log(np.clip(variance, 1e-12, NOTHING)) + 2 * np.log(t)[:, None])

    def now(self, confidence: float) -> Floats:
        """log (t^2 Var log c) [B] as it is."""
        nothing = np.zeros((1, *self.moments.shape[:2], 4))
        return self.spread(nothing, np.zeros(1, bool), confidence)[0]

    def factor(self, confidence: float) -> float:
        """Ratio of the ends of the interval of c, the median over the ensemble."""
        half = self.ensemble.quantile(self.now(confidence), 0.5) / 2
        return math.exp(min(2 * math.exp(min(half, 5.0)), 300.0))


def _quantile(dof: int, confidence: float) -> float:
    return float(special.stdtrit(dof, 0.5 + confidence / 2)) if dof else UNREPLICATED


def design(
    table: LevelTable | None,
    sigma: float,
    candidates: Sequence[Mixture],
    *,
    cost: Callable[[Mixture], float] = lambda mixture: 1.0,
    cells: int | None = None,
    budget: float | None = None,
    pending: Sequence[Mixture] = (),
    confidence: float = 0.95,
) -> Advice:
    """At most `cells` trainings, or as many as `budget` pays for, in order; each is one more seed of a candidate.

    table: what is measured, None for nothing. candidates: clean-only sizes and mixtures at `sigma`; others are left
    out. cost: > 0 of one training of a mixture. pending: trainings under way, taken as done. Raises UsageError where
    nothing is asked for or no candidate is of use.
    """
    if (cells is None) == (budget is None):
        raise UsageError("give either a number of cells or a budget: how much may be trained")
    if not (cells is None or cells >= 1) or not (budget is None or budget > 0):
        raise UsageError(f"{cells if budget is None else budget} is nothing to plan with: it must be above 0")
    useful = _useful(candidates, sigma)
    most = cells if cells is not None else math.inf
    left = budget if budget is not None else math.inf
    try:
        if table is None:
            raise DataError("nothing is measured yet")
        ensemble = Ensemble.of(table, sigma)
    except DataError as error:
        have = Counter(pending)
        for c in () if table is None else table.cells:
            have[Mixture(c.n_clean, c.n_noisy, c.sigma_n)] += len(c.seeds)
        steps: list[Step] = []
        for mixture, why in spread(useful, have):
            if len(steps) < most and cost(mixture) <= left:
                steps.append(Step(mixture, cost(mixture), None, why))
                left -= cost(mixture)
        return Advice(tuple(steps), None, f"no law can be fitted ({error}): these cells spread")
    information = Information(ensemble)
    for mixture in pending:
        if not mixture.n_noisy or mixture.sigma_n == sigma:
            information.add(mixture)
    before = information.factor(confidence)
    steps = []
    while len(steps) < most:
        affordable = [m for m in useful if cost(m) <= left and information.seeds[m] < MOST_SEEDS]
        chosen = _next(information, affordable, cost, confidence) if affordable else None
        if chosen is None:
            break
        mixture, why = chosen
        information.add(mixture)
        left -= cost(mixture)
        steps.append(Step(mixture, cost(mixture), information.factor(confidence), why))
    worth = ensemble.quantile(ensemble.c, 0.5)
    trained = sum(information.ensemble.cells.values())
    known = f"{trained} trainings put the worth above σ {sigma:g} near {worth:.2g}"
    return Advice(tuple(steps), before, known)


def _useful(candidates: Sequence[Mixture], sigma: float) -> list[Mixture]:
    useful = [m for m in dict.fromkeys(candidates) if m.n_clean and (not m.n_noisy or m.sigma_n == sigma)]
    if not any(m.n_noisy for m in useful) or len({m.n_clean for m in useful if not m.n_noisy}) < 2:
        raise UsageError(
            f"the candidates must hold a mixture of clean images with noisy ones at σ {sigma:g}, and clean-only cells "
            "at two sizes or more"
        )
    return useful


def _next(
    information: Information, useful: list[Mixture], cost: Callable[[Mixture], float], confidence: float
) -> tuple[Mixture, str] | None:
    """The candidate with the greatest gain per cost whose equivalent size is enclosed, or what encloses it."""
    ensemble = information.ensemble
    for mixture in sorted((m for m in information.seeds if m.n_noisy), key=lambda m: (m.n_clean, m.n_noisy)):
        first = _first(information, mixture, useful)
        if first is not None and first != mixture:
            return first, f"encloses {mixture.name}"
    rows = ensemble.rows(useful)
    replicated = np.array([information.seeds[m] > 0 for m in useful])
    after = information.spread(rows, replicated, confidence) @ ensemble.weight
    gain = (float(information.now(confidence) @ ensemble.weight) - after) / np.array([cost(m) for m in useful])
    for k in np.argsort(-gain, kind="stable"):
        mixture = useful[k]
        first = _first(information, mixture, useful)
        if first == mixture:
            return mixture, "another seed" if replicated[k] else "new cell"
        if first is not None:
            return first, f"encloses {mixture.name}"
    return None


def _first(information: Information, mixture: Mixture, useful: Sequence[Mixture]) -> Mixture | None:
    """What to train first for a mixture's sake: itself where clean-only sizes enclose its equivalent size, else the
    size that does; None where none of the candidates does."""
    if not mixture.n_noisy:
        return mixture
    ensemble = information.ensemble
    clean = [m.n_clean for m in information.seeds if not m.n_noisy]
    possible = sorted((m for m in useful if not m.n_noisy), key=lambda m: m.n_clean)
    size = ensemble.sizes(mixture)
    low, high = ensemble.quantile(size, 1 - ENCLOSED), ensemble.quantile(size, ENCLOSED)
    if max(clean) < high:
        return next((m for m in possible if m.n_clean >= high), None)
    if min(clean) > low:
        return next((m for m in reversed(possible) if m.n_clean <= low), None)
    return mixture
