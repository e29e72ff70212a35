"""Prediction of mixtures that a law by level has not seen: their denoising error, and their Frechet distance.

Every mixture of one noise level is left out in turn; laws are fitted to the others and to the clean-only models. Of the
denoising error all levels of the mixture are predicted. A Frechet distance is predicted from the two goods,

    FD = F_inf + a N_coarse^-p + b N_fine^-q,      N_coarse, N_fine from the denoising errors,

non-negative least squares in (F_inf, a, b) on a grid of (p, q); the distance of a mixture that is left out is never
seen, its denoising error is. Beside it one worth (that of the denoising errors, and one fitted to the distances
themselves), and the controls: every image counts, only clean ones count.

The score is |log(predicted/measured)|; a perfect law still scores about .67 standard errors in the median.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.goods import CLEAN_ONLY, FREE, NAIVE, ONE, TWO, U_MAX, LawFit, Market, worth_of
from ambient_theory.compare.by_level.judgement import FORMULA, Judgement, all_laws
from ambient_theory.compare.by_level.levels import LevelTable
from ambient_theory.compare.cells.tables import Group, MeasuredCell, table_of
from ambient_theory.compare.fitting import varpro
from ambient_theory.shared.errors import DataError

Floats = NDArray[np.float64]
SHOWN = (TWO, ONE, FREE, FORMULA, NAIVE, CLEAN_ONLY)
FITTED = "one worth, fitted to FD"
MIN_CELLS = 6
"""Cells that must be left to fit a distance: one more than the two goods have constants."""


@dataclass(frozen=True)
class Unseen:
    """Errors of one law over left-out mixtures. median, upper: median and 95 % quantile of |log(predicted/measured)|.

    noise: the median that the scatter over seeds alone gives a perfect law, None from one seed a cell.
    pairs: (measured, predicted).
    """

    law: str
    tested: int
    median: float
    upper: float
    noise: float | None
    pairs: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, law: str, measured: Sequence[float], predicted: Sequence[float], stderr: Sequence[float]) -> Unseen:
        """stderr: standard errors of log measured; empty where unknown."""
        ratio = np.abs(np.log(np.asarray(predicted) / np.asarray(measured)))
        noise = 0.6745 * float(np.median(stderr)) if len(stderr) else None
        pairs = tuple((float(m), float(p)) for m, p in zip(measured, predicted, strict=True))
        return cls(law, len(ratio), float(np.median(ratio)), float(np.quantile(ratio, 0.95)), noise, pairs)

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pairs"}


def unseen_errors(table: LevelTable, noise_levels: Sequence[float]) -> list[Unseen]:
    """Denoising errors of left-out mixtures at `noise_levels` by each law; empty where too few cells are left."""
    measured: dict[str, list[float]] = {}
    predicted: dict[str, list[float]] = {}
    stderr: dict[str, list[float]] = {}
    for sigma_n in noise_levels:
        mixtures = [c for c in table.mixtures if c.sigma_n == sigma_n]
        for left_out in mixtures:
            try:
                market = Market.of(table, sigma_n, tuple(c for c in table.cells if c is not left_out))
            except DataError:
                continue
            if not np.any(market.n_noisy > 0):
                continue
            for name, law in all_laws(market, table, SHOWN).items():
                found = law.predict(float(left_out.n_clean), float(left_out.n_noisy))
                predicted.setdefault(name, []).extend(found.tolist())
                log_error, replicates = table.means([left_out])
                measured.setdefault(name, []).extend(np.exp(log_error[0]).tolist())
                if table.scatter.dof:
                    spread = table.scatter.deviation / np.sqrt(replicates[0])
                    stderr.setdefault(name, []).extend(spread.tolist())
    return [Unseen.of(n, measured[n], predicted[n], stderr.get(n, [])) for n in SHOWN if n in measured]


# ----------------------------------------------------------------------------------------------------- Frechet distance


def nonnegative(columns: Floats, target: Floats) -> tuple[Floats, Floats]:
    """(sse [B], coefficients [B, K]) of non-negative least squares, columns [B, R, K], target [R]; K is small.

    The best of all subsets of columns whose free solution is non-negative, which is the exact minimum.
    """
    batch, _, size = columns.shape
    best = np.full(batch, float(target @ target))
    coefficients = np.zeros((batch, size))
    for count in range(1, size + 1):
        for chosen in itertools.combinations(range(size), count):
            x = columns[:, :, chosen]
            normal = np.swapaxes(x, 1, 2) @ x
            ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(count)
            found = np.linalg.solve(normal + ridge, (np.swapaxes(x, 1, 2) @ target)[..., None])[..., 0]
            sse = np.sum((np.einsum("brk,bk->br", x, found) - target) ** 2, axis=1)
            better = np.all(found >= 0, axis=1) & (sse < best)
            best[better] = sse[better]
            coefficients[better] = 0.0
            coefficients[np.ix_(better, chosen)] = found[better]
    return best, coefficients


def goods_sizes(law: LawFit, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats]:
    """(N_coarse, N_fine) [X] of mixes under the two goods, in clean images."""
    above = law.market.above
    coarse = float(law.worth[above][0]) if above.any() else 0.0
    fine = float(law.worth[~above][0]) if not above.all() else 0.0
    return law.market.size(coarse, 0.0, n_clean, n_noisy), law.market.size(fine, law.q, n_clean, n_noisy)


def two_goods_curve(coarse: Floats, fine: Floats, score: Floats) -> Callable[[Floats, Floats], Floats]:
    """`F_inf + a N_coarse^-p + b N_fine^-q` fitted to relative errors of scores [R] > 0; its values at other sizes."""
    grid = np.exp(np.linspace(np.log(0.1), np.log(3.0), 18))
    p, q = (x.ravel() for x in np.meshgrid(grid, grid, indexing="ij"))
    unit = float(np.exp(np.mean(np.log(coarse))))

    def columns(n_coarse: Floats, n_fine: Floats) -> Floats:
        first = np.exp(-p[:, None] * np.log(n_coarse / unit))
        second = np.exp(-q[:, None] * np.log(n_fine / unit))
        return np.stack([np.ones_like(first), first, second], axis=2)

    sse, coefficients = nonnegative(columns(coarse, fine) / score[:, None], np.ones(len(score)))
    best = int(np.argmin(sse))
    return lambda a, b: np.asarray(columns(a, b)[best] @ coefficients[best])


def one_curve(size: Floats, score: Floats) -> Callable[[float], float]:
    """`F_inf + a N^-p` fitted to relative errors of scores [R] > 0; its value at other sizes."""
    errors = varpro.Errors(score[None], 1 / score[None], float(np.exp(np.mean(np.log(size)))))
    curves = varpro.fit(size[None], errors)
    return lambda n: float(curves.predict(np.array([[n]]))[0, 0, 0])


def _fitted_worth(n_clean: Floats, n_noisy: Floats, score: Floats) -> float:
    """The c of `n_clean + c n_noisy` with which one curve fits the scores best."""
    errors = varpro.Errors(score[None], 1 / score[None], float(np.exp(np.mean(np.log(n_clean)))))
    grid = np.linspace(0.0, U_MAX, 121)
    sse = varpro.fit(n_clean + worth_of(grid)[:, None] * n_noisy, errors).sse[:, 0]
    return float(worth_of(grid[int(np.argmin(sse))]))


def unseen_scores(group: Group, judgements: Mapping[float, Judgement]) -> list[Unseen]:
    """Scores of left-out mixtures of a group by each law, from judgements of the same models by noise level.

    Empty where the scores may be negative, or too few cells are left to fit.
    """
    if group.scale != "log":
        return []
    clean = [c for c in group.price_cells if not c.n_noisy]
    means = _means(group)
    rows: dict[str, list[tuple[float, float, float | None]]] = {}
    for sigma_n, judged in judgements.items():
        mixtures = [c for c in group.price_cells if c.sigma_n == sigma_n]
        for left_out in mixtures:
            seen = [*clean, *(c for c in mixtures if c is not left_out)]
            if len(seen) < MIN_CELLS or len(clean) < 2 or len(mixtures) < 2:
                continue
            score = np.array([means[c][0] for c in seen])
            for name, value in _predictions(seen, left_out, judged, score).items():
                rows.setdefault(name, []).append((means[left_out][0], value, means[left_out][1]))
    out = []
    for name, found in rows.items():
        errors = [e for _, _, e in found if e is not None]
        out.append(Unseen.of(name, [m for m, _, _ in found], [p for _, p, _ in found], errors))
    return out


def _means(group: Group) -> dict[MeasuredCell, tuple[float, float | None]]:
    """Mean score of each cell with clean samples, and the standard error of its log, with seeds as blocks."""
    pooled = table_of(group)
    errors = [float(np.sqrt(pooled.variance / n)) if pooled.dof else None for n in pooled.seeds]
    scores = np.asarray(group.back(pooled.y))
    return {c: (float(s), e) for c, s, e in zip(group.price_cells, scores, errors, strict=True)}


def _predictions(
    seen: Sequence[MeasuredCell], left_out: MeasuredCell, judged: Judgement, score: Floats
) -> dict[str, float]:
    """The left-out cell's score by law, two goods first."""
    n_clean = np.array([float(c.n_clean) for c in seen])
    n_noisy = np.array([float(c.n_noisy) for c in seen])
    new_clean, new_noisy = float(left_out.n_clean), float(left_out.n_noisy)
    law, new = judged.laws[TWO], (np.array([new_clean]), np.array([new_noisy]))
    curve = two_goods_curve(*goods_sizes(law, n_clean, n_noisy), score)
    out = {TWO: float(curve(*goods_sizes(law, *new))[0])}
    worths = {ONE: judged.one.value, FITTED: _fitted_worth(n_clean, n_noisy, score), NAIVE: 1.0, CLEAN_ONLY: 0.0}
    for name, c in worths.items():
        out[name] = one_curve(n_clean + c * n_noisy, score)(new_clean + c * new_noisy)
    return out
