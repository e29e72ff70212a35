"""Seeds as blocks, and models of few images that scatter more: means of cells, and how certain they are.

Models of a seed share first weights, the choice of clean images and the noise of the noisy ones. Where cells share
seeds, log scores follow the additive model of a field trial in blocks (Fisher 1935, "The Design of Experiments", ch. 4)

    y_cs = m_c + b_s + e_cs,        var e_cs = s^2 (n_c / n)^-g        cells c, seeds s that two cells or more share,

fitted by least squares with weights (n_c/n)^g, with b_s adding up to 0 over the seeds that are linked by cells. b_s
moves all cells of a seed alike, and with them no comparison of two cells; so what comparisons are judged by is the
scatter of e. n_c is the number of images that the cell counts for (the caller's; none: all alike), n their geometric
mean over the models, so that s is the scatter of a model of typical size. The exponent g >= 0, one for all outcomes, is
that of the largest restricted likelihood (Patterson and Thompson 1971), of the outcomes' mean, where its ratio to that
of g = 0 is certain at 1 %; elsewhere all cells scatter alike, g = 0. If every cell has every seed, the degrees of
freedom are (cells - 1)(seeds - 1), and m_c is the plain mean if g = 0. A seed that one cell alone has, or that is not
known, makes no block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEEPEST, _STEPS = 6.0, 25
"""Largest exponent g that is tried, in how many steps."""
CERTAIN = 5.412
"""Twice the log of the ratio of restricted likelihoods that g > 0 must reach: 1 % of a half chi^2_1, since g = 0 is on
the bound (Self and Liang 1987)."""
ALIKE = 1e-24
"""Sums of squares up to this are those of copies, which are no replicates."""


@dataclass(frozen=True, eq=False)
class Blocked:
    """mean: m_c [C, L] of L outcomes; replicates [C, L]: the number of independent models of typical size whose plain
    mean would be as certain; rest: e of each cell [seeds, L], in units in which a model of typical size has its own
    scatter; spent: free b_s; exponent: g; typical [L]: n; weight [C, L]: (n_c/n)^g."""

    mean: Floats
    replicates: Floats
    rest: tuple[Floats, ...]
    spent: int
    exponent: float
    typical: Floats
    weight: Floats

    def dof(self) -> int:
        """Degrees of freedom of the rest."""
        return sum(len(r) - 1 for r in self.rest) - self.spent


def blocked(seeds: Sequence[Sequence[int | None]], values: Sequence[Floats], size: Floats | None = None) -> Blocked:
    """Fit the model to the values [seeds, L] of each cell. size: n_c [C, L]."""
    if not values:
        return Blocked(np.zeros((0, 1)), np.zeros((0, 1)), (), 0, 0.0, np.ones(1), np.zeros((0, 1)))
    counts = np.array([len(v) for v in values])
    owner, columns, rows = np.repeat(np.arange(len(values)), counts), _columns(seeds), np.vstack(list(values))
    log_n = np.zeros(rows.shape) if size is None else np.log(size)[owner]
    typical = log_n.mean(axis=0)
    log_n = log_n - typical
    g = _exponent(owner, columns, rows, log_n)
    weight = np.exp(g * log_n)
    found = _Fit.of(owner, columns, rows, weight)
    return Blocked(
        mean=found.mean,
        replicates=1 / found.variance,
        rest=tuple(np.split(found.rest * np.sqrt(weight), np.cumsum(counts)[:-1])),
        spent=columns.shape[1],
        exponent=g,
        typical=np.exp(typical),
        weight=weight[np.searchsorted(owner, np.arange(len(values)))],
    )


def blocked_by_size(
    seeds: Sequence[Sequence[int | None]], values: Sequence[Floats], n_clean: Floats, n_noisy: Floats
) -> Blocked:
    """`blocked`, each cell counting for the clean images that do as well. n_clean, n_noisy [C]: its images.

    n_c of a cell with noisy images is where the means of the clean-only cells, joined by lines in log n and kept from
    rising, reach its own; nothing beyond the clean-only sizes. Without two of those all cells count alike.

    Models of noisy images alone scatter several times more, below their noise above all. Beside others they are fitted
    by themselves and add nothing to what is left of those (one row of zeros each); their replicates are in models of
    the others' typical size, so that a comparison of the two kinds has the scatter of each.
    """
    alone = n_clean == 0
    if not alone.any() or alone.all():
        return _by_size(seeds, values, n_clean, n_noisy)
    main, other = (
        _by_size([seeds[int(k)] for k in chosen], [values[int(k)] for k in chosen], n_clean[chosen], n_noisy[chosen])
        for chosen in (np.flatnonzero(~alone), np.flatnonzero(alone))
    )
    shape, place = (len(values), main.mean.shape[1]), np.argsort(np.argsort(alone, kind="stable"), kind="stable")
    replicates = np.vstack([main.replicates, other.replicates * _ratio_of_variances(main, other)])[place]
    rests = [*main.rest, *(np.zeros((1, shape[1])) for _ in other.rest)]
    weight = np.vstack([main.weight, np.ones(other.weight.shape)])[place]
    mean = np.vstack([main.mean, other.mean])[place]
    return replace(main, mean=mean, replicates=replicates, rest=tuple(rests[k] for k in place), weight=weight)


def _ratio_of_variances(main: Blocked, other: Blocked) -> Floats:
    """Of one model of each [L]; 1 where one of them is not known."""
    one, two = (sum(np.sum(r**2, axis=0) for r in f.rest) for f in (main, other))
    if main.dof() < 1 or other.dof() < 1 or np.any(one <= ALIKE) or np.any(two <= ALIKE):
        return np.ones(main.mean.shape[1])
    return np.asarray((one / main.dof()) / (two / other.dof()))


def _by_size(
    seeds: Sequence[Sequence[int | None]], values: Sequence[Floats], n_clean: Floats, n_noisy: Floats
) -> Blocked:
    """`blocked_by_size` of cells of one kind."""
    found = blocked(seeds, values)
    clean = np.flatnonzero(n_noisy == 0)
    clean = clean[np.argsort(n_clean[clean], kind="stable")]
    if len(set(n_clean[clean])) < 2:
        return found
    log_n = np.log(n_clean[clean])
    for _ in range(2):  # the sizes are read on means that the weights move a little
        falling = np.minimum.accumulate(found.mean[clean])
        read = [np.interp(-y, -f, log_n) for y, f in zip(found.mean.T, falling.T, strict=True)]
        size = np.stack(read, axis=1)
        size[clean] = log_n[:, None]
        found = blocked(seeds, values, np.exp(size))
    return found


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weighted least squares of every outcome. mean, variance [C, L] of the cells' means in units of s^2; rest [M, L];
    log_det [L]: of the normal matrix."""

    mean: Floats
    variance: Floats
    rest: Floats
    log_det: Floats

    @classmethod
    def of(cls, owner: NDArray[np.intp], columns: Floats, rows: Floats, weight: Floats) -> _Fit:
        """owner [M]: the cell of each model, ascending. columns [M, K] of the seeds; rows, weight [M, L].

        Cells are eliminated first (Frisch and Waugh 1933), so that a system of K seeds is left."""
        starts = np.searchsorted(owner, np.arange(owner[-1] + 1))
        total = np.add.reduceat(weight, starts)
        own = np.add.reduceat(weight * rows, starts) / total
        centre = np.add.reduceat(weight[:, :, None] * columns[:, None, :], starts) / total[:, :, None]
        x, y = columns[:, None, :] - centre[owner], rows - own[owner]
        weighted = (weight[:, :, None] * x).transpose(1, 2, 0)
        normal = weighted @ x.transpose(1, 0, 2)
        inverse = np.linalg.inv(normal)
        b = (inverse @ (weighted @ y.T[:, :, None]))[..., 0]
        by_cell = centre.transpose(1, 0, 2)
        return cls(
            mean=own - (by_cell @ b[..., None])[..., 0].T,
            variance=1 / total + ((by_cell @ inverse) * by_cell).sum(axis=2).T,
            rest=y - (x * b).sum(axis=2),
            log_det=np.log(total).sum(axis=0) + np.linalg.slogdet(normal)[1],
        )


def _exponent(owner: NDArray[np.intp], columns: Floats, rows: Floats, log_n: Floats) -> float:
    """g of the largest restricted likelihood, on a grid, then a parabola's. log_n [M, L], of mean 0 over the models."""
    dof = len(owner) - 1 - int(owner[-1]) - columns.shape[1]
    if dof < 1 or not np.ptp(log_n):
        return 0.0
    grid = np.linspace(0.0, STEEPEST, _STEPS)
    weight = np.exp(log_n[:, None, :] * grid[:, None]).reshape(len(owner), -1)  # all exponents in one fit
    fit = _Fit.of(owner, columns, np.tile(rows, (1, _STEPS)), weight)
    squares = (weight * fit.rest**2).sum(axis=0)
    if np.any(squares <= ALIKE):
        return 0.0
    found = (dof * np.log(squares) + fit.log_det).reshape(_STEPS, -1).mean(axis=1)
    if found[0] - found.min() < CERTAIN:
        return 0.0
    k = int(np.clip(np.argmin(found), 1, _STEPS - 2))
    left, middle, right = found[k - 1 : k + 2]
    bend = left - 2 * middle + right
    move = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(np.clip(grid[k] + np.clip(move, -1.0, 1.0) * grid[1], 0.0, STEEPEST))


def _columns(seeds: Sequence[Sequence[int | None]]) -> Floats:
    """Columns [models, K]: of each set of seeds that cells link, one for every seed but the last, 1 for its own models
    and -1 for those of the last one."""
    counts = Counter(s for own in seeds for s in set(own) if s is not None)
    root = {s: s for s, n in counts.items() if n > 1}

    def root_of(s: int) -> int:
        while root[s] != s:
            s = root[s]
        return s

    for own in seeds:
        shared = [s for s in own if s in root]
        for s in shared[1:]:
            if s is not None and shared[0] is not None:
                root[root_of(s)] = root_of(shared[0])
    every = [s for own in seeds for s in own]
    columns = []
    for first in sorted({root_of(s) for s in root}):
        *others, last = sorted(s for s in root if root_of(s) == first)
        columns += [[float(s == one) - float(s == last) for s in every] for one in others]
    return np.array(columns).reshape(len(columns), len(every)).T
