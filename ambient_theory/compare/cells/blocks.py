"""Seeds as blocks: what models of one training seed have in common is no scatter between cells.

Models of a seed share first weights, the choice of clean images and the noise of the noisy ones. Where cells share
seeds, log scores follow the additive model of a field trial in blocks (Fisher 1935, "The Design of Experiments", ch. 4)

    y_cs = m_c + b_s + e_cs        cells c, seeds s that two cells or more share,

fitted by least squares, with b_s adding up to 0 over the seeds that are linked by cells. b_s moves all cells of a seed
alike, and with them no comparison of two cells; so what comparisons are judged by is the scatter of e. If every cell
has every seed, m_c is the plain mean, and the degrees of freedom are (cells - 1)(seeds - 1). A seed that one cell alone
has, or that is not known, makes no block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Blocked:
    """mean: m_c [C, L] of L outcomes; replicates [C]: the number of independent models whose plain mean would be as
    certain (the seeds, where every cell has the same); rest: e of each cell [seeds, L]; spent: free b_s."""

    mean: Floats
    replicates: Floats
    rest: tuple[Floats, ...]
    spent: int

    def dof(self) -> int:
        """Degrees of freedom of the rest."""
        return sum(len(r) - 1 for r in self.rest) - self.spent


def blocked(seeds: Sequence[Sequence[int | None]], values: Sequence[Floats]) -> Blocked:
    """Fit the model to the values [seeds, L] of each cell."""
    if not values:
        return Blocked(np.zeros((0, 1)), np.zeros(0), (), 0)
    counts = np.array([len(v) for v in values])
    columns = _columns(seeds)
    if not columns.shape[1]:
        means = [v.mean(axis=0) for v in values]
        rests = tuple(v - m for v, m in zip(values, means, strict=True))
        return Blocked(np.array(means), counts.astype(float), rests, 0)
    rows = np.vstack(list(values))
    cells = len(values)
    design = np.hstack([np.eye(cells)[np.repeat(np.arange(cells), counts)], columns])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ (design.T @ rows)
    rests = tuple(np.split(rows - design @ found, np.cumsum(counts)[:-1]))
    return Blocked(found[:cells], 1 / np.diag(inverse)[:cells], rests, columns.shape[1])


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
