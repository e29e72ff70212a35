"""Is a noisy image one good or two? Nested laws of its worth over the levels, at one noise level sigma_n of the data.

At every level s the error of a model is `E(s) = E_inf(s) + a(s) N(s)^-p(s)` (three free constants a level, held by the
clean-only models), and a law says what N is, in clean images, for n_clean clean and n_noisy noisy ones, r their ratio:

    one worth      N = n_clean + c n_noisy                                       at all levels
    two goods      N_coarse = n_clean + c n_noisy                                above the noise, s > sigma_n
                   N_fine   = n_clean + w n_noisy (1 + q r*)/(1 + q r)           below
    free worths    as two goods, with a worth of its own at each level
    V/(V + v)      no constant: see `compare.by_level.formula`

w is the worth below the noise at r*, the mixtures' typical ratio. q = 0 adds; q > 0 saturates: N_fine <= n_clean times
`1 + w (1 + q r*)/q`, so noisy images multiply the clean ones by a factor that no number of them exceeds.

Fits are exact profiles (`compare.fitting.varpro`). Residuals `sqrt(seeds) (E - model)/(E s(level))` are weighed as if
levels were independent; they are not (one seed moves all its levels), so what is compared with chance are quadratic
forms whose mean and degrees of freedom follow from the correlation between levels, estimated over seeds
(`compare.fitting.quadratic`). Interval (`compare.by_level.potency`): all values whose profile lies within `lambda t^2`
of the minimum (magnitude-adjusted composite likelihood, Chandler and Bate 2007), lambda the mean of the one-parameter
form.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable, check_priceable
from ambient_theory.compare.fitting import varpro
from ambient_theory.compare.fitting.quadratic import Form, Test, basis, form
from ambient_theory.shared.eigenvalues import WHITE, Eigenvalues
from ambient_theory.shared.errors import DataError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
C_MAX, C_UNIT = 4.0, 0.01
Q_MAX, Q_UNIT = 50.0, 0.1
C_POINTS, Q_POINTS = 41, 11
U_MAX, U_Q_MAX = math.log1p(C_MAX / C_UNIT), math.log1p(Q_MAX / Q_UNIT)
C_GRID, Q_GRID = np.linspace(0.0, U_MAX, C_POINTS), np.linspace(0.0, U_Q_MAX, Q_POINTS)
"""Coordinates (see `worth_of`, `saturation_of`) at which every search begins."""

CLEAN_ONLY, NAIVE, ONE, NOTHING_BELOW, ADDITIVE, TWO, FREE = (
    "clean only (c = 0)",
    "naive n (c = 1)",
    "one worth",
    "two goods, nothing below",
    "two goods, additive below",
    "two goods",
    "free worths",
)
LAWS = (CLEAN_ONLY, NAIVE, ONE, NOTHING_BELOW, ADDITIVE, TWO, FREE)


def worth_of(u: Any) -> Any:
    """c from the coordinate of searches, u = log(1 + c/.01): even steps in c near 0, in log c above."""
    return C_UNIT * np.expm1(u)


def saturation_of(u: Any) -> Any:
    """q from the coordinate of searches, u = log(1 + q/.1)."""
    return Q_UNIT * np.expm1(u)


@dataclass(frozen=True, eq=False)
class Market:
    """The cells that price a noisy image at one sigma_n: all clean-only ones and the mixtures at that level.

    error, seeds [L, R], n_clean, n_noisy [R]: of the R cells, clean-only first; seeds: replicates of typical scatter
    (`compare.cells.blocks`); deviation, correlation: of one such model's log error beside what its seed moves alike;
    typical [L], exponent: its size n, and g of the variance (N/n)^-g of one that counts for N images.
    noise: its kind. above: which levels exceed it, the root of its largest eigenvalue (white: sigma_n). reference: r*,
    geometric mean of the mixtures' n_noisy/n_clean.
    """

    sigma_n: float
    levels: Floats
    cells: tuple[LevelCell, ...]
    error: Floats
    seeds: Floats
    deviation: Floats
    correlation: Floats
    dof: int
    typical: Floats
    exponent: float
    noise: Eigenvalues = WHITE

    @classmethod
    def of(cls, table: LevelTable, sigma_n: float, cells: tuple[LevelCell, ...] | None = None) -> Market:
        """cells: a part of the table's, the others held out. Raises DataError where they cannot determine a law."""
        check_priceable(table)
        mixtures = tuple(c for c in table.mixtures if c.sigma_n == sigma_n)
        if not mixtures:
            known = ", ".join(f"{s:g}" for s in table.noise_levels) or "none"
            raise DataError(f"{table.key.dataset}: no mixture has noise σ {sigma_n:g}; measured are {known}")
        chosen = tuple(c for c in (*table.clean, *mixtures) if cells is None or c in cells)
        log_error, replicates = table.means(chosen)
        market = cls(
            sigma_n=sigma_n,
            levels=table.levels,
            cells=chosen,
            error=np.exp(log_error).T,
            seeds=replicates.T,
            deviation=table.scatter.deviation,
            correlation=table.scatter.correlation,
            dof=table.scatter.dof,
            typical=table.blocked.typical,
            exponent=table.blocked.exponent,
            noise=table.noise,
        )
        if len(chosen) < 5 or len({c.n_clean for c in chosen if not c.n_noisy}) < 2:
            raise DataError(
                f"{table.key.dataset}, σ {sigma_n:g}: {len(chosen)} cells cannot determine a curve and a worth; it "
                "takes five or more, two of them clean-only at different sizes"
            )
        return market

    @cached_property
    def n_clean(self) -> Floats:
        return np.array([float(c.n_clean) for c in self.cells])

    @cached_property
    def n_noisy(self) -> Floats:
        return np.array([float(c.n_noisy) for c in self.cells])

    @property
    def ratio(self) -> Floats:
        return self.n_noisy / self.n_clean

    @property
    def above(self) -> Mask:
        return np.asarray(self.levels > self.noise.lowest_level(self.sigma_n))

    @property
    def reference(self) -> float:
        mixed = self.ratio[self.n_noisy > 0]
        return float(np.exp(np.mean(np.log(mixed))))

    @property
    def one_ratio(self) -> bool:
        """All mixtures have the same ratio, so that saturation cannot be seen."""
        mixed = self.ratio[self.n_noisy > 0]
        return bool(np.ptp(np.log(mixed)) < 1e-6)

    @cached_property
    def errors(self) -> varpro.Errors:
        weight = np.sqrt(self.seeds) / (self.error * self.deviation[:, None])
        return varpro.Errors(self.error, weight, float(np.exp(np.mean(np.log(self.n_clean)))))

    def rough(self, q: float = 0.0) -> Floats:
        """Sums of squares [C_POINTS, L] on the grid of worths at saturation q: where to look closer."""
        if q not in self._rough:
            size = self.size(worth_of(C_GRID)[:, None], q)
            self._rough[q] = varpro.fit(size, self.errors, rough=True).sse
        return self._rough[q]

    @cached_property
    def _rough(self) -> dict[float, Floats]:
        return {}

    @cached_property
    def only_clean(self) -> varpro.Curves:
        """The curves of the clean-only cells alone."""
        clean = self.n_noisy == 0
        return varpro.fit(self.n_clean[None, clean], self.errors.of(clean))

    def size(self, worth: Any, q: Any = 0.0, n_clean: Any = None, n_noisy: Any = None) -> Floats:
        """N, broadcasting worth and q [..., 1] against the cells [R]."""
        clean = self.n_clean if n_clean is None else n_clean
        noisy = self.n_noisy if n_noisy is None else n_noisy
        return np.asarray(clean + worth * noisy * (1 + q * self.reference) / (1 + q * noisy / clean))


@dataclass(frozen=True, eq=False)
class LawFit:
    """One fitted law. worth [L]: of a noisy image at each level (below the noise at the ratio r*); q: saturation below.

    pattern [L, k]: which levels share a fitted worth, a column each; saturates: q was fitted. sse: weighted squares.
    """

    name: str
    market: Market
    worth: Floats
    q: float
    pattern: Floats
    saturates: bool
    curves: varpro.Curves

    @cached_property
    def span(self) -> Floats:
        """Orthonormal basis of the columns of the Jacobian."""
        return basis(self.jacobian)

    @cached_property
    def residual(self) -> Form:
        """What chance makes of its sum of squares."""
        return form(None, self.span, self.market.correlation)

    @cached_property
    def lack(self) -> Test | None:
        """Its comparison with the scatter over seeds, None where nothing is known of it."""
        return Test.of(self.sse, self.residual, self.market.dof) if self.market.dof else None

    @property
    def sse(self) -> float:
        return float(self.curves.sse.sum())

    @property
    def parameters(self) -> int:
        return self.pattern.shape[1] + self.saturates

    @property
    def sizes(self) -> Floats:
        """N [L, R]."""
        q = np.where(self.market.above, 0.0, self.q)[:, None]
        return self.market.size(self.worth[:, None], q)

    def predict(self, n_clean: float, n_noisy: float) -> Floats:
        """E [L] of a model of so many images."""
        q = np.where(self.market.above, 0.0, self.q)
        size = self.market.size(self.worth, q, n_clean, n_noisy)
        return self.curves.predict(size[None, :, None])[0, :, 0]

    @cached_property
    def slopes(self) -> tuple[Floats, Floats]:
        """Derivatives of the weighted model [L, R] by the worth of its level, and by q."""
        m, q = self.market, np.where(self.market.above, 0.0, self.q)[:, None]
        by_size = self._decay * -np.exp(self.curves.log_p[0])[:, None] / self.sizes * m.errors.weight
        share = (1 + q * m.reference) / (1 + q * m.ratio)
        by_q = self.worth[:, None] * m.n_noisy * (m.reference - m.ratio) / (1 + q * m.ratio) ** 2
        return by_size * m.n_noisy * share, by_size * np.where(m.above[:, None], 0.0, by_q)

    @property
    def _decay(self) -> Floats:
        """a N^-p [L, R]."""
        n = np.log(self.sizes / self.curves.unit)
        return np.asarray(self.curves.a[0][:, None] * np.exp(-np.exp(self.curves.log_p[0])[:, None] * n))

    @cached_property
    def nuisance(self) -> Floats:
        """Columns of the weighted Jacobian [L R, ...] for E_inf, a and p of every level; none for those on a bound."""
        columns = []
        decay, weight = self._decay, self.market.errors.weight
        log_n = np.log(self.sizes / self.curves.unit)
        for k in range(len(self.worth)):
            floor, a, log_p = (float(x[0, k]) for x in (self.curves.floor, self.curves.a, self.curves.log_p))
            found = [weight[k]] if floor > 0 or a == 0 else []
            if a > 0:
                found.append(weight[k] * decay[k])
                if min(log_p - math.log(varpro.EXPONENTS[0]), math.log(varpro.EXPONENTS[1]) - log_p) > 1e-3:
                    found.append(weight[k] * decay[k] * -math.exp(log_p) * log_n[k])
            for values in found:
                column = np.zeros(weight.shape)
                column[k] = values
                columns.append(column.ravel())
        return np.array(columns).T

    def tangent(self, pattern: Floats | None = None, saturates: bool | None = None) -> Floats:
        """Columns for worths that share levels by `pattern` and, if `saturates`, for q; the law's own by default."""
        by_worth, by_q = self.slopes
        pattern = self.pattern if pattern is None else pattern
        columns = [(by_worth * column[:, None]).ravel() for column in pattern.T]
        if self.saturates if saturates is None else saturates:
            columns.append(by_q.ravel())
        return np.array(columns).reshape(len(columns), by_worth.size).T

    @cached_property
    def jacobian(self) -> Floats:
        return np.hstack([self.nuisance, self.tangent()])


# --------------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True, eq=False)
class Part:
    """Levels [n] that share a worth, at saturation q."""

    levels: NDArray[np.intp]
    q: float = 0.0

    @classmethod
    def of(cls, mask: Mask) -> Part:
        return cls(np.nonzero(mask)[0])


def _worths(market: Market, parts: Sequence[Part]) -> tuple[Floats, Floats]:
    """(worth, sum of squares) [K] of the best worth of each part, all parts in one batch.

    The grid of `Market.rough`, two finer ones around the best of each part, then the vertices of two parabolas.
    """
    if not parts:
        return np.zeros(0), np.zeros(0)
    levels = np.concatenate([p.levels for p in parts])
    owner = np.repeat(np.arange(len(parts)), [len(p.levels) for p in parts])
    starts = np.searchsorted(owner, np.arange(len(parts)))
    q, errors = np.array([p.q for p in parts])[owner, None], market.errors.at(levels)

    def total(u: Floats) -> Floats:
        """Of each part [B, K] at coordinates [B, K]."""
        sse = varpro.fit(market.size(worth_of(u)[:, owner, None], q), errors).sse
        return np.add.reduceat(sse, starts, axis=1)

    rough = np.stack([market.rough(p.q)[:, p.levels].sum(axis=1) for p in parts], axis=1)
    best, step, each = C_GRID[np.argmin(rough, axis=0)], C_GRID[1], np.arange(len(parts))
    for _ in range(2):
        u = np.clip(best + np.linspace(-step, step, 9)[:, None], 0.0, U_MAX)
        sse = total(u)
        best, step = u[np.argmin(sse, axis=0), each], step / 4
    near = varpro.vertex(sse.T, u.T)
    u = np.clip(near + np.linspace(-step, step, 3)[:, None] / 8, 0.0, U_MAX)
    near = varpro.vertex(total(u).T, u.T)
    u = np.stack([best, near])
    sse = total(u)
    k = np.argmin(sse, axis=0)
    return np.asarray(worth_of(u[k, each])), sse[k, each]


def _below(market: Market, part: Mask) -> tuple[float, float]:
    """(w, q): the worth of all levels of `part` and its saturation, on a grid of both, refined around the best.

    At last the vertex of the paraboloid through the best point and its eight neighbours.
    """
    errors = market.errors.at(part)

    def total(u: Floats, v: Floats) -> Floats:
        size = market.size(worth_of(u.ravel())[:, None], saturation_of(v.ravel())[:, None])
        return np.asarray(varpro.fit(size, errors).sse.sum(axis=1).reshape(u.shape))

    spans = [(0.0, U_MAX), (0.0, U_Q_MAX)]
    axes = [C_GRID, Q_GRID]
    sse = np.stack([market.rough(float(saturation_of(v)))[:, part].sum(axis=1) for v in Q_GRID], axis=1)
    for _ in range(4):
        k = np.unravel_index(np.argmin(sse), sse.shape)
        steps = [x[1] - x[0] for x in axes]
        axes = [
            np.linspace(max(x[i] - s, low), min(x[i] + s, high), 7)
            for x, i, s, (low, high) in zip(axes, k, steps, spans, strict=True)
        ]
        sse = total(*np.meshgrid(*axes, indexing="ij"))
    k = np.unravel_index(np.argmin(sse), sse.shape)
    best = np.array([axes[0][k[0]], axes[1][k[1]]])
    at = _paraboloid(sse, axes, k)
    if at is not None and total(at[:1], at[1:])[0] < sse[k]:
        best = at
    return float(worth_of(best[0])), float(saturation_of(best[1]))


def _paraboloid(f: Floats, axes: Sequence[Floats], k: tuple[Any, ...]) -> Floats | None:
    """Vertex of the paraboloid through f [A, B] at k and its eight neighbours; None at an edge, or if it has none."""
    i, j = (int(x) for x in k)
    if not (0 < i < f.shape[0] - 1 and 0 < j < f.shape[1] - 1):
        return None
    near = f[i - 1 : i + 2, j - 1 : j + 2]
    gradient = np.array([near[2, 1] - near[0, 1], near[1, 2] - near[1, 0]]) / 2
    cross = (near[2, 2] - near[2, 0] - near[0, 2] + near[0, 0]) / 4
    bend = np.array([near[2, 1] + near[0, 1], near[1, 2] + near[1, 0]]) - 2 * near[1, 1]
    hessian = np.array([[bend[0], cross], [cross, bend[1]]])
    if bend[0] <= 0 or np.linalg.det(hessian) <= 0:
        return None
    move = np.clip(-np.linalg.solve(hessian, gradient), -1.0, 1.0)
    return np.array([axes[0][i], axes[1][j]]) + move * np.array([x[1] - x[0] for x in axes])


def _saturations(market: Market, part: Mask, start: float) -> list[float]:
    """Saturations to try where each level of `part` has a worth of its own: `start`, and the best of a search that
    takes each level's worth from the grid."""
    errors = market.errors.at(part)

    def total(v: Floats) -> Floats:
        """Sums of squares at coordinates [V] of q, each level at its best worth of the grid."""
        u, w = (x.ravel() for x in np.meshgrid(C_GRID, v, indexing="ij"))
        size = market.size(worth_of(u)[:, None], saturation_of(w)[:, None])
        sse = varpro.fit(size, errors, rough=True).sse
        return np.asarray(sse.reshape(len(C_GRID), len(v), -1).min(axis=0).sum(axis=1))

    v = Q_GRID
    sse = np.array([market.rough(float(saturation_of(x)))[:, part].min(axis=0).sum() for x in v])
    for _ in range(2):
        k, step = int(np.argmin(sse)), v[1] - v[0]
        v = np.linspace(max(v[k] - step, 0.0), min(v[k] + step, U_Q_MAX), 9)
        sse = total(v)
    return [start, float(saturation_of(v[np.argmin(sse)]))]


# ----------------------------------------------------------------------------------------------------------------- laws


def fixed_law(market: Market, name: str, worth: Floats) -> LawFit:
    """A law without a fitted constant: the worth at each level [L] is given."""
    return _law(market, name, worth, 0.0, np.zeros((len(worth), 0)), False)


def _law(market: Market, name: str, worth: Floats, q: float, pattern: Floats, saturates: bool) -> LawFit:
    at = np.where(market.above, 0.0, q)[:, None]
    curves = varpro.fit(market.size(worth[:, None], at)[None], market.errors)
    return LawFit(name, market, worth, q, pattern, saturates, curves)


def fit_laws(market: Market, names: Collection[str] = LAWS) -> dict[str, LawFit]:
    """The laws of these names, the controls first, each nested in the next from `one worth` on.

    Without a level above the noise, or none below, two goods are one. With all mixtures at one ratio, saturation cannot
    be seen and stays 0.
    """
    above, below = market.above, ~market.above
    count = len(market.levels)
    both = bool(above.any() and below.any())
    saturates = bool(below.any() and not market.one_ratio)
    apart = np.stack([above, below], axis=1).astype(float) if both else np.ones((count, 1))
    wanted = {name for name in LAWS if name in names and (both or name not in (NOTHING_BELOW, ADDITIVE))}
    w = q = 0.0
    if saturates and wanted & {TWO, FREE}:
        w, q = _below(market, below)
    parts: dict[str, list[Part]] = {}
    if ONE in wanted:
        parts["all"] = [Part(np.arange(count))]
    if above.any() and wanted & {TWO, NOTHING_BELOW, ADDITIVE}:
        parts["above"] = [Part.of(above)]
    if below.any() and (ADDITIVE in wanted or (TWO in wanted and not saturates)):
        parts["below"] = [Part.of(below)]
    tried = _saturations(market, below, q) if saturates and FREE in wanted else [0.0]
    if FREE in wanted:
        parts["each above"] = [Part(np.array([k])) for k in np.nonzero(above)[0]]
        for i, at in enumerate(tried):
            parts[f"each below {i}"] = [Part(np.array([k]), at) for k in np.nonzero(below)[0]]
    values, sse = _worths(market, [p for group in parts.values() for p in group])
    owner = np.repeat(np.arange(len(parts)), [len(group) for group in parts.values()])
    worths = {name: values[owner == i] for i, name in enumerate(parts)}
    sums = {name: float(sse[owner == i].sum()) for i, name in enumerate(parts)}

    def one(name: str) -> float:
        return float(worths[name][0]) if name in worths else 0.0

    def make(name: str) -> LawFit:
        if name in (CLEAN_ONLY, NAIVE):
            return fixed_law(market, name, np.full(count, float(name == NAIVE)))
        if name == ONE:
            return _law(market, ONE, np.full(count, one("all")), 0.0, np.ones((count, 1)), False)
        if name == NOTHING_BELOW:
            return _law(market, name, np.where(above, one("above"), 0.0), 0.0, apart[:, :1], False)
        if name == ADDITIVE:
            return _law(market, name, np.where(above, one("above"), one("below")), 0.0, apart, False)
        if name == TWO:
            fine = w if saturates else one("below")
            return _law(market, TWO, np.where(above, one("above"), fine), q, apart, saturates)
        best = int(np.argmin([sums[f"each below {i}"] for i in range(len(tried))]))
        worth = np.zeros(count)
        worth[above], worth[below] = worths["each above"], worths[f"each below {best}"]
        return _law(market, FREE, worth, tried[best], np.eye(count), saturates)

    return {name: make(name) for name in LAWS if name in wanted}
