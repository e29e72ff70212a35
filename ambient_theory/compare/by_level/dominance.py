"""Does a mixture lose to a part of its own data? Level by level, against the better of its parts alone.

A method uses all of its data well only if, at every diffusion level s, the model of n_clean clean and n_noisy noisy
images errs no more than the model of the clean ones alone and the model of the noisy ones alone. With E(s) the
held-out denoising error and the models paired by seed,

    d(s) = mean over seeds of log E_mixture(s) - log E_part(s)

for each part, with the standard error of these paired differences. It is the pair's own: differences from models of
6,000 images scatter a fifth as much as from models of 100, and those from noisy images alone several times more than
those from clean ones, so a pooled one would hide losses of one kind and invent those of another. A level is lost where
d exceeds, for either part, the quantile of Student's t with seeds - 1 degrees of freedom that a normal variable exceeds
as rarely as `MARGIN`: 2.3 %. `Losses.expected` counts what chance exceeds of all tests if mixtures equal their parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable

Floats = NDArray[np.float64]
MARGIN = 2.0
"""Standard errors, known exactly, by which a mixture may exceed a part."""
CHANCE = 0.5 * math.erfc(MARGIN / math.sqrt(2))
"""How often one test exceeds that where nothing is lost."""


@dataclass(frozen=True, eq=False)
class PartComparison:
    """A mixture against its parts alone. excess [L]: d(s), a natural logarithm, of the part of which the loss is the
    most certain; stderr [L], 0 from one seed; margin [L]: of z; better [L]: which part. tests: parts with two seeds."""

    cell: LevelCell
    levels: Floats
    excess: Floats
    stderr: Floats
    margin: Floats
    better: tuple[str, ...]
    n_seeds: int
    n_parts: int
    tests: int

    @property
    def z(self) -> Floats:
        """Excess in standard errors [L]; nan where there is no standard error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.stderr > 0, self.excess / self.stderr, np.nan)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Levels at which the mixture loses by more than the margin [L]."""
        return np.asarray(self.z > self.margin)

    @property
    def worst(self) -> int:
        """Index of the level with the largest excess in standard errors, in logarithm where there is none."""
        z = self.z / self.margin
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
    """Over all mixtures of a table: levels compared, levels lost, tests made (a level with two parts is two)."""

    compared: int
    lost: int
    tests: int

    @property
    def expected(self) -> float:
        """Levels that chance loses at most: of mixtures that equal both of their parts."""
        return self.tests * CHANCE

    @classmethod
    def of(cls, comparisons: Iterable[PartComparison]) -> Losses:
        found = [c for c in comparisons if np.isfinite(c.z).any()]
        levels = [len(c.levels) for c in found]
        tests = sum(n * c.tests for n, c in zip(levels, found, strict=True))
        return cls(sum(levels), sum(int(c.lost.sum()) for c in found), tests)


def compare_with_parts(table: LevelTable) -> list[PartComparison]:
    """Every mixture of the table of which a part alone was trained with a seed in common.

    The standard error is that of the paired differences of the pair; 0 (and no verdict) from one seed in common.
    """
    out = []
    for cell in table.mixtures:
        differences = [(p.name, d) for p in _parts(table, cell) if len(d := _paired(cell, p))]
        if differences:
            out.append(_compare(table, cell, differences))
    return out


def _parts(table: LevelTable, cell: LevelCell) -> list[LevelCell]:
    clean = [c for c in table.clean if c.n_clean == cell.n_clean]
    noisy = [c for c in table.noisy_only if (c.n_noisy, c.sigma_n) == (cell.n_noisy, cell.sigma_n)]
    return clean + noisy


def _paired(cell: LevelCell, part: LevelCell) -> Floats:
    """log E_mixture - log E_part of the seeds they share [seeds, L]."""
    common = [s for s in cell.seeds if s in part.seeds]
    rows = [cell.log_error[cell.seeds.index(s)] - part.log_error[part.seeds.index(s)] for s in common]
    return np.array(rows).reshape(len(common), cell.log_error.shape[1])


def _compare(table: LevelTable, cell: LevelCell, found: Sequence[tuple[str, Floats]]) -> PartComparison:
    counts = np.array([len(d) for _, d in found])
    means = np.array([d.mean(axis=0) for _, d in found])  # [parts, L]
    errors = np.array([_standard_error(d) for _, d in found])
    margins = np.array([_margin(n) for n in counts])[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = np.where(errors > 0, means / errors / margins, np.nan)
    told = np.where(np.isnan(beyond), -np.inf, beyond)
    choice = np.where(np.isfinite(told).any(axis=0), told.argmax(axis=0), means.argmax(axis=0))
    columns = np.arange(len(table.levels))
    return PartComparison(
        cell=cell,
        levels=table.levels,
        excess=means[choice, columns],
        stderr=errors[choice, columns],
        margin=np.broadcast_to(margins, means.shape)[choice, columns],
        better=tuple(found[i][0] for i in choice),
        n_seeds=int(counts.min()),
        n_parts=len(found),
        tests=int((counts > 1).sum()),
    )


def _standard_error(d: Floats) -> Floats:
    """Of the mean of paired differences [seeds, L], 0 from one seed [L]."""
    return np.zeros(d.shape[1]) if len(d) < 2 else d.std(axis=0, ddof=1) / math.sqrt(len(d))


def _margin(seeds: int) -> float:
    """The quantile of Student's t that is exceeded by chance as a normal variable exceeds `MARGIN`."""
    return float(special.stdtrit(seeds - 1, 1 - CHANCE)) if seeds > 1 else MARGIN
