"""Groups of comparable cells, the cells as arrays, and the scatter that is pooled over them.

Which records may meet in one group is decided in `ambient_theory.compare.cells.grouping`. The seed of training is
the unit of replication: every standard error comes from the scatter over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc

from ambient_theory.compare.cells.blocks import Blocked, blocked_by_size
from ambient_theory.shared.replicates import replicates

Floats = NDArray[np.float64]


@dataclass(frozen=True, order=True)
class GroupKey:
    """What must agree before two scores may be compared.

    duration_nimg 0 stands for unknown, level 0 for a metric without one. method, checkpoint, evaluation: in short
    words, empty where unknown; evaluation ends in a hash of all its settings but n, which stands apart.
    """

    dataset: str
    source: str
    metric: str
    extractor: str
    reference: str
    duration_nimg: int
    n_eval: int
    level: float = 0.0
    method: str = ""
    checkpoint: str = ""
    evaluation: str = ""

    @property
    def extractor_name(self) -> str:
        return self.extractor.split(":")[0]

    def label(self) -> str:
        """In words, for tables and captions."""
        parts = [self.dataset, f"{METRIC_NAMES.get(self.metric, self.metric)} in {self.extractor_name}"]
        if self.level:
            parts.append(f"at diffusion level {self.level:g}")
        if self.reference != "not-stated":
            parts.append(f"against {self.reference}")
        if self.duration_nimg:
            parts.append(f"{self.duration_nimg:,} training images")
        if self.n_eval:
            parts.append(f"{self.n_eval:,} generated")
        if self.evaluation:
            parts.append(f"evaluation {self.evaluation}")
        if self.checkpoint and self.checkpoint != "last":
            parts.append(f"checkpoint {self.checkpoint}")
        if self.method:
            parts.append(f"method {self.method}")
        return ", ".join(parts)

    def short(self) -> str:
        """In few words, for terminal tables."""
        duration = f", {_thousands(self.duration_nimg)} nimg" if self.duration_nimg else ""
        level = f" at {self.level:g}" if self.level else ""
        rule = f", {self.checkpoint}" if self.checkpoint and self.checkpoint != "last" else ""
        return f"{self.dataset}: {self.metric}{level} {self.extractor_name}, {self.reference}{duration}{rule}"

    def to_dict(self) -> dict[str, Any]:
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "level": self.level or None}


def _thousands(n: int) -> str:
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" if n >= 1e4 else str(n)


DISTANCES = ("fd", "fid")
"""Metrics that are a Fréchet distance."""
METRIC_NAMES = {"fd": "Fréchet distance", "fid": "FID", "kid": "KID", "w1": "Wasserstein distance W1", "nats": "nats"}


#: Added noise below and above which a noise level is a control: c must be 1, or 0 (pixels in [-1, 1]).
CLEAN_LIKE, NOISE_LIKE = 0.005, 40.0


def is_control(sigma_n: float) -> bool:
    """A noise level at which the worth is known beforehand: a calibration of the sweep, not a price."""
    return sigma_n <= CLEAN_LIKE or sigma_n >= NOISE_LIKE


def mixture_words(n_clean: int, n_noisy: int, sigma_n: float | None) -> str:
    """A training mixture in words: `100 clean + 1,000 noisy (σ 0.2)`."""
    if not n_noisy:
        return f"{n_clean:,} clean"
    noisy = f"{n_noisy:,} noisy (σ {sigma_n:g})"
    return f"{n_clean:,} clean + {noisy}" if n_clean else noisy


@dataclass(frozen=True)
class MeasuredCell:
    """One training mixture and its scores, one for each training seed.

    sigma_n: added noise of the noisy samples (None where nothing is noisy). floor, memorisation_floor: the score of
    perfect samples, and of the clean training images themselves, at the same number of images (None where unknown).
    grid_name: what the cell is called in its grids, regime: what the records call it (empty where they do not).
    """

    n_clean: int
    n_noisy: int
    sigma_n: float | None
    seeds: tuple[int | None, ...]
    values: tuple[float, ...]
    regime: str = ""
    grid_name: str = ""
    floor: float | None = None
    memorisation_floor: float | None = None

    @property
    def name(self) -> str:
        return mixture_words(self.n_clean, self.n_noisy, self.sigma_n)

    @property
    def kind(self) -> str:
        """The regime: as the records say, or as the counts do (`clean`, `mixture`, `noisy-only`)."""
        if self.regime:
            return self.regime
        return "clean" if not self.n_noisy else "mixture" if self.n_clean else "noisy-only"

    @property
    def mean(self) -> float:
        return replicates(self.values).mean

    @property
    def stderr(self) -> float | None:
        """Standard error over seeds; None from a single seed."""
        return replicates(self.values).stderr


@dataclass(frozen=True)
class Group:
    """Comparable cells, and the scale on which their scatter is pooled.

    scale: `log` where every score is positive (the scatter of distances is multiplicative), else `raw` (an unbiased
    kernel distance may be negative). notes: what was left out and why.
    """

    key: GroupKey
    cells: tuple[MeasuredCell, ...]
    scale: str
    notes: tuple[str, ...] = ()

    @property
    def price_cells(self) -> tuple[MeasuredCell, ...]:
        """Cells with clean samples, without the calibration controls.

        Noisy-only cells follow another law and are never fitted with these.
        """
        return tuple(c for c in self.cells if c.n_clean > 0 and not (c.sigma_n is not None and is_control(c.sigma_n)))

    @property
    def controls(self) -> tuple[MeasuredCell, ...]:
        """Calibration cells: "noisy" images almost without noise, or of nothing but noise. They price nothing."""
        return tuple(c for c in self.cells if c.sigma_n is not None and is_control(c.sigma_n) and c.n_clean > 0)

    @property
    def noisy_only(self) -> tuple[MeasuredCell, ...]:
        return tuple(cell for cell in self.cells if cell.n_clean == 0)

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Noise levels of the cells with clean samples, ascending."""
        return tuple(sorted({c.sigma_n for c in self.price_cells if c.sigma_n is not None}))

    @property
    def n_seeds(self) -> int:
        return max((len(c.values) for c in self.cells), default=0)

    def transform(self, value: Any) -> Any:
        """Scores on the pooled scale."""
        return np.log(value) if self.scale == "log" else np.asarray(value, dtype=float)

    def back(self, value: Any) -> Any:
        """Inverse of `transform`."""
        return np.exp(value) if self.scale == "log" else np.asarray(value, dtype=float)


@dataclass(frozen=True)
class Table:
    """The cells with clean samples of one group as arrays over the R cells.

    y: (R,) mean over seeds on the group's scale, with seeds as blocks and more scatter in models of few images
    (`compare.cells.blocks`). seeds: (R,) replicates of typical scatter.
    variance: pooled variance of one such model beside what its seed's have in common, with dof degrees of freedom;
    NaN and 0 if every cell has one seed, or if the seeds agree to the last digit (then they are copies, not
    replicates).
    sigma_n is 0 where nothing is noisy.
    """

    n_clean: Floats
    n_noisy: Floats
    sigma_n: Floats
    y: Floats
    seeds: Floats
    variance: float
    dof: int
    names: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        return len(self.y)


def table_of(group: Group, cells: Sequence[MeasuredCell] | None = None) -> Table:
    """Arrays of `cells` (default: the group's cells with clean samples)."""
    chosen = group.price_cells if cells is None else tuple(cells)
    ys, n_clean, n_noisy, found = _blocked(group, chosen)
    identical = all(float(np.ptp(y)) == 0 for y in ys)
    dof = 0 if identical else max(found.dof(), 0)
    scatter = sum(float(np.sum(rest**2)) for rest in found.rest)
    return Table(
        n_clean=n_clean,
        n_noisy=n_noisy,
        sigma_n=np.array([c.sigma_n or 0.0 for c in chosen], dtype=float),
        y=found.mean[:, 0],
        seeds=found.replicates[:, 0],
        variance=scatter / dof if dof else math.nan,
        dof=dof,
        names=tuple(c.name for c in chosen),
    )


def _blocked(group: Group, cells: Sequence[MeasuredCell]) -> tuple[list[Floats], Floats, Floats, Blocked]:
    """(scores on the group's scale of each cell, n_clean, n_noisy, the fit)."""
    ys = [np.asarray(group.transform(cell.values)) for cell in cells]
    n_clean = np.array([c.n_clean for c in cells], dtype=float)
    n_noisy = np.array([c.n_noisy for c in cells], dtype=float)
    found = blocked_by_size([cell.seeds for cell in cells], [y[:, None] for y in ys], n_clean, n_noisy)
    return ys, n_clean, n_noisy, found


def uneven_scatter(group: Group) -> float | None:
    """p value of Bartlett's test that the scatter over seeds is the same in all cells with clean samples, but for what
    their sizes explain (`compare.cells.blocks`).

    Small: the pooled variance is too large for some cells and too small for others. None where fewer than two cells
    have three seeds, or where one of them has no scatter at all.
    """
    ys, _, _, found = _blocked(group, group.price_cells)
    return bartlett([y * root for y, root in zip(ys, np.sqrt(found.weight[:, 0]), strict=True) if len(y) > 2])


def bartlett(samples: Sequence[Floats]) -> float | None:
    """p value of Bartlett's test (1937) that all samples have one variance; None where fewer than two are given, or
    where one of them has no scatter at all."""
    if len(samples) < 2 or any(float(np.ptp(y)) == 0 for y in samples):
        return None
    dof = np.array([len(y) - 1 for y in samples])
    variance = np.array([np.var(y, ddof=1) for y in samples])
    pooled = float(dof @ variance / dof.sum())
    statistic = dof.sum() * math.log(pooled) - float(dof @ np.log(variance))
    correction = 1 + (float(np.sum(1 / dof)) - 1 / dof.sum()) / (3 * (len(samples) - 1))
    return float(chdtrc(len(samples) - 1, statistic / correction))


def scores_alike(table: Table) -> float | None:
    """p value of the F test that all cells have one mean: large where the training sizes made no difference.

    None without replicated seeds or with fewer than two cells.
    """
    if not table.dof or table.size < 2:
        return None
    mean = float(table.seeds @ table.y / table.seeds.sum())
    f = float(table.seeds @ (table.y - mean) ** 2) / (table.size - 1) / table.variance
    return float(fdtrc(table.size - 1, table.dof, f))
