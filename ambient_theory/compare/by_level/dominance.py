"""Does a mixture lose to a part of its own data? Level by level, against the better of its parts alone.

A method uses all of its data well only if, at every diffusion level s, the model of n_clean clean and n_noisy noisy
images errs no more than the model of the clean ones alone and the model of the noisy ones alone. With E(s) the
held-out denoising error and the models paired by seed,

    d(s) = mean over seeds of log E_mixture(s) - log E_part(s),   part = the one with the smaller mean at s

and its standard error from the scatter of the paired differences, pooled over the mixtures of the table (they are
few-seed experiments of one kind). A level is lost where d exceeds `MARGIN` standard errors. Since the better part is
chosen by its own noisy mean, d is slightly pessimistic where the parts are close. At each of many levels 2.3 % exceed
two standard errors although nothing is lost; `Losses.expected` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable

Floats = NDArray[np.float64]
MARGIN = 2.0
"""Standard errors by which a mixture may exceed the better of its parts."""


@dataclass(frozen=True, eq=False)
class PartComparison:
    """A mixture against its parts alone. excess [L]: d(s), a natural logarithm; stderr [L]; better [L]: which part."""

    cell: LevelCell
    levels: Floats
    excess: Floats
    stderr: Floats
    better: tuple[str, ...]
    n_seeds: int
    n_parts: int

    @property
    def z(self) -> Floats:
        """Excess in standard errors [L]; nan where there is no standard error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.stderr > 0, self.excess / self.stderr, np.nan)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Levels at which the mixture loses by more than `MARGIN` standard errors [L]."""
        return self.z > MARGIN

    @property
    def worst(self) -> int:
        """Index of the level with the largest excess in standard errors, in logarithm where there is none."""
        z = self.z
        return int(np.nanargmax(z)) if np.isfinite(z).any() else int(np.argmax(self.excess))

    def sentence(self) -> str:
        """What happens, in words: `100 clean + 200 noisy (σ 0.6): loses at 2 of 16 levels, worst at s .75 ...`."""
        k = self.worst
        amount = f"{math.expm1(float(self.excess[k])):+.1%} at s {self.levels[k]:.2g} against {self.better[k]}"
        if not np.isfinite(self.z).any():
            return f"{self.cell.name}: one seed, no standard error; largest difference {amount}"
        count = int(self.lost.sum())
        if not count:
            return f"{self.cell.name}: at no level worse than the better of its parts; closest {amount}"
        return f"{self.cell.name}: worse at {count} of {len(self.levels)} levels; most {amount}, {self.z[k]:.1f} s.e."

    def to_dict(self) -> dict[str, Any]:
        return {
            "n_clean": self.cell.n_clean,
            "n_noisy": self.cell.n_noisy,
            "sigma_n": self.cell.sigma_n,
            "seeds": self.n_seeds,
            "parts": self.n_parts,
            "levels": self.levels.tolist(),
            "log_excess": self.excess.tolist(),
            "stderr": self.stderr.tolist(),
            "better": list(self.better),
            "lost": int(self.lost.sum()),
        }


@dataclass(frozen=True)
class Losses:
    """Over all mixtures of a table: levels compared, levels lost, and how many would seem so by chance."""

    compared: int
    lost: int

    @property
    def expected(self) -> float:
        """Levels lost by chance if every mixture equalled the better of its parts."""
        return self.compared * 0.5 * math.erfc(MARGIN / math.sqrt(2))

    @classmethod
    def of(cls, comparisons: Iterable[PartComparison]) -> Losses:
        found = [c for c in comparisons if np.isfinite(c.z).any()]
        return cls(sum(len(c.levels) for c in found), sum(int(c.lost.sum()) for c in found))


def compare_with_parts(table: LevelTable) -> list[PartComparison]:
    """Every mixture of the table of which a part alone was trained with a seed in common.

    The standard error is that of the pooled paired differences; 0 (and no verdict) where no cell has two seeds.
    """
    paired: list[tuple[LevelCell, list[tuple[str, Floats]]]] = []
    for cell in table.mixtures:
        differences = [(p.name, d) for p in _parts(table, cell) if len(d := _paired(cell, p))]
        if differences:
            paired.append((cell, differences))
    scatter = _pooled([d for _, found in paired for _, d in found], len(table.levels))
    return [_compare(table, cell, found, scatter) for cell, found in paired]


def _parts(table: LevelTable, cell: LevelCell) -> list[LevelCell]:
    clean = [c for c in table.clean if c.n_clean == cell.n_clean]
    noisy = [c for c in table.noisy_only if (c.n_noisy, c.sigma_n) == (cell.n_noisy, cell.sigma_n)]
    return clean + noisy


def _paired(cell: LevelCell, part: LevelCell) -> Floats:
    """log E_mixture - log E_part of the seeds they share [seeds, L]."""
    common = [s for s in cell.seeds if s in part.seeds]
    rows = [cell.log_error[cell.seeds.index(s)] - part.log_error[part.seeds.index(s)] for s in common]
    return np.array(rows).reshape(len(common), cell.log_error.shape[1])


def _pooled(differences: Sequence[Floats], levels: int) -> Floats:
    """Standard deviation of one paired difference at each level [L], 0 where nothing tells."""
    total, dof = np.zeros(levels), 0
    for d in differences:
        total += ((d - d.mean(axis=0)) ** 2).sum(axis=0)
        dof += len(d) - 1
    return np.sqrt(total / dof) if dof else np.zeros(levels)


def _compare(
    table: LevelTable, cell: LevelCell, found: Sequence[tuple[str, Floats]], scatter: Floats
) -> PartComparison:
    means = np.array([d.mean(axis=0) for _, d in found])  # [parts, L]; the better part gives the larger difference
    choice = means.argmax(axis=0)
    counts = np.array([len(d) for _, d in found])
    columns = np.arange(len(table.levels))
    return PartComparison(
        cell=cell,
        levels=table.levels,
        excess=means[choice, columns],
        stderr=scatter / np.sqrt(counts[choice]),
        better=tuple(found[i][0] for i in choice),
        n_seeds=int(counts.min()),
        n_parts=len(found),
    )
