"""From records to tables of comparable cells.

Two scores can be compared only if they have the same data set, metric, feature extractor, reference set, training
duration and number of generated images (a Frechet distance is biased by about 1/n_eval). Records that differ in one
of these never meet in one fit: they form groups of their own, and each group is analysed alone.

A *cell* is one training mixture (n_clean, n_noisy, sigma), measured with one or several training seeds. The seed of
training is the unit of replication: every standard error below comes from the scatter over seeds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record, read_records

Floats = NDArray[np.float64]


def shipped_records() -> list[Record]:
    """The records that come with the project: every `*.jsonl` of the package's `shipped` directory."""
    with resources.as_file(resources.files("ambient_theory.compare") / "shipped") as directory:
        files = sorted(directory.glob("*.jsonl"))
        if not files:
            raise DataError(f"{directory}: no shipped records in this installation; name files of records")
        return read_records(*files)


@dataclass(frozen=True, order=True)
class GroupKey:
    """What must agree before two scores may be compared. duration_nimg 0 stands for unknown."""

    dataset: str
    source: str
    metric: str
    extractor: str
    reference: str
    duration_nimg: int
    n_eval: int

    @property
    def extractor_name(self) -> str:
        return self.extractor.split(":")[0]

    def label(self) -> str:
        """In words, for tables and captions."""
        parts = [self.dataset, f"{METRIC_NAMES.get(self.metric, self.metric)} in {self.extractor_name}"]
        if self.reference != "not-stated":
            parts.append(f"against {self.reference}")
        if self.duration_nimg:
            parts.append(f"{self.duration_nimg:,} training images")
        if self.n_eval:
            parts.append(f"{self.n_eval:,} generated")
        return ", ".join(parts)

    def short(self) -> str:
        """In few words, for terminal tables."""
        duration = f", {_thousands(self.duration_nimg)} nimg" if self.duration_nimg else ""
        return f"{self.dataset}: {self.metric} {self.extractor_name}, {self.reference}{duration}"

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _thousands(n: int) -> str:
    return f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" if n >= 1e4 else str(n)


METRIC_NAMES = {"fd": "Fréchet distance", "fid": "FID", "kid": "KID", "w1": "Wasserstein distance W1"}


def key_of(record: Record) -> GroupKey:
    """The group of a record."""
    return GroupKey(
        dataset=record.dataset,
        source=record.source,
        metric=record.metric,
        extractor=record.extractor,
        reference=record.reference,
        duration_nimg=record.duration_nimg or 0,
        n_eval=record.n_eval,
    )


#: Added noise below and above which a noise level is a control: c must be 1, or 0 (pixels in [-1, 1]).
CLEAN_LIKE, NOISE_LIKE = 0.005, 40.0


def is_control(sigma: float) -> bool:
    """A noise level at which the worth is known beforehand: a calibration of the sweep, not a price."""
    return sigma <= CLEAN_LIKE or sigma >= NOISE_LIKE


@dataclass(frozen=True)
class MeasuredCell:
    """One training mixture and its scores, one for each training seed.

    sigma: added noise of the noisy samples (None where nothing is noisy). floor, memorisation_floor: the score of
    perfect samples, and of the clean training images themselves, at the same number of images (None where unknown).
    """

    n_clean: int
    n_noisy: int
    sigma: float | None
    seeds: tuple[int | None, ...]
    values: tuple[float, ...]
    regime: str = ""
    floor: float | None = None
    memorisation_floor: float | None = None

    @property
    def name(self) -> str:
        if not self.n_noisy:
            return f"{self.n_clean:,} clean"
        noisy = f"{self.n_noisy:,} noisy (σ {self.sigma:g})"
        return f"{self.n_clean:,} clean + {noisy}" if self.n_clean else noisy

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def stderr(self) -> float | None:
        """Standard error over seeds; None from a single seed."""
        return float(np.std(self.values, ddof=1) / math.sqrt(len(self.values))) if len(self.values) > 1 else None


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
        return tuple(c for c in self.cells if c.n_clean > 0 and not (c.sigma is not None and is_control(c.sigma)))

    @property
    def controls(self) -> tuple[MeasuredCell, ...]:
        """Calibration cells: "noisy" images almost without noise, or of nothing but noise. They price nothing."""
        return tuple(c for c in self.cells if c.sigma is not None and is_control(c.sigma) and c.n_clean > 0)

    @property
    def noisy_only(self) -> tuple[MeasuredCell, ...]:
        return tuple(cell for cell in self.cells if cell.n_clean == 0)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels of the cells with clean samples, ascending."""
        return tuple(sorted({c.sigma for c in self.price_cells if c.sigma is not None}))

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

    y: (R,) mean over seeds on the group's scale. seeds: (R,) numbers of seeds. variance: pooled variance of one
    seed, `sum_cells sum_seeds (y - mean)^2 / dof`, with dof = sum (seeds - 1); NaN and 0 if every cell has one seed, or
    if the seeds agree to the last digit (then they are copies, not replicates).
    sigma is 0 where nothing is noisy.
    """

    n_clean: Floats
    n_noisy: Floats
    sigma: Floats
    y: Floats
    seeds: Floats
    variance: float
    dof: int
    names: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        return len(self.y)

    def take(self, index: NDArray[Any]) -> Table:
        """The cells at `index` (positions or a mask), with the same pooled variance."""
        names = tuple(np.asarray(self.names)[index]) if self.names else ()
        return Table(
            self.n_clean[index],
            self.n_noisy[index],
            self.sigma[index],
            self.y[index],
            self.seeds[index],
            self.variance,
            self.dof,
            names,
        )


def table_of(group: Group, cells: Sequence[MeasuredCell] | None = None) -> Table:
    """Arrays of `cells` (default: the group's cells with clean samples)."""
    chosen = group.price_cells if cells is None else tuple(cells)
    ys = [np.asarray(group.transform(cell.values)) for cell in chosen]
    identical = all(float(np.ptp(y)) == 0 for y in ys)
    dof = 0 if identical else sum(len(y) - 1 for y in ys)
    scatter = sum(float(np.sum((y - y.mean()) ** 2)) for y in ys)
    return Table(
        n_clean=np.array([c.n_clean for c in chosen], dtype=float),
        n_noisy=np.array([c.n_noisy for c in chosen], dtype=float),
        sigma=np.array([c.sigma or 0.0 for c in chosen], dtype=float),
        y=np.array([y.mean() for y in ys], dtype=float),
        seeds=np.array([len(y) for y in ys], dtype=float),
        variance=scatter / dof if dof else math.nan,
        dof=dof,
        names=tuple(c.name for c in chosen),
    )


def uneven_scatter(group: Group) -> float | None:
    """p value of Bartlett's test that the scatter over seeds is the same in all cells with clean samples.

    Small: the pooled variance is too large for some cells and too small for others. None where fewer than two cells
    have three seeds, or where one of them has no scatter at all.
    """
    ys = [np.asarray(group.transform(c.values)) for c in group.price_cells if len(c.values) > 2]
    if len(ys) < 2 or any(float(np.ptp(y)) == 0 for y in ys):
        return None
    return float(stats.bartlett(*ys).pvalue)


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _cell(mixture: tuple[int, int, float | None], records: list[Record]) -> tuple[MeasuredCell | None, list[str]]:
    """One cell from the records of one mixture; repeated records count once, conflicting ones refuse the cell."""
    by_seed: dict[int | None, float] = {}
    chosen: list[Record] = []
    for record in records:
        if record.seed in by_seed:
            if by_seed[record.seed] != record.value:
                name = MeasuredCell(*mixture, (), ()).name
                problem = (
                    f"{name}: seed {record.seed} was recorded with two different values "
                    f"({by_seed[record.seed]:g}, {record.value:g}), so two experiments are mixed; the cell is left out"
                )
                return None, [problem]
            continue
        by_seed[record.seed] = record.value
        chosen.append(record)
    floors = [f for r in chosen if (f := _number(r.extra.get("floor"))) is not None]
    copies = [f for r in chosen if (f := _number(r.extra.get("memorisation_floor"))) is not None]
    cell = MeasuredCell(
        *mixture,
        seeds=tuple(by_seed),
        values=tuple(by_seed.values()),
        regime=str(chosen[0].extra.get("regime", "")),
        floor=float(np.mean(floors)) if floors else None,
        memorisation_floor=float(np.mean(copies)) if copies else None,
    )
    return cell, []


def group_records(records: Iterable[Record]) -> list[Group]:
    """Comparable groups of the training and published records, those with most cells with clean samples first.

    Simulations have panels of their own, published prices (metric `price`) are no scores, and second-hand numbers
    (`extra.grade`) stay out of every analysis: these are passed over.
    Raises DataError where a record has noisy samples and no noise level.
    """
    by_key: dict[GroupKey, dict[tuple[int, int, float | None], list[Record]]] = defaultdict(lambda: defaultdict(list))
    left_out: dict[GroupKey, list[str]] = defaultdict(list)
    for record in records:
        if record.source == "simulate" or record.metric == "price" or record.extra.get("grade") == "second-hand":
            continue
        key = key_of(record)
        sigma = record.sigma[0] if isinstance(record.sigma, tuple) and len(record.sigma) == 1 else record.sigma
        if record.n_clean + record.n_noisy == 0:
            raise DataError(f"a {record.metric} record of {record.dataset} has neither clean nor noisy images")
        if record.n_noisy and sigma is None:
            raise DataError(f"a {record.metric} record of {record.dataset} has {record.n_noisy} noisy images, no sigma")
        if isinstance(sigma, tuple):
            left_out[key].append(f"a cell with several noise levels {sigma} (one price cannot be read from it)")
            continue
        mixture = (record.n_clean, record.n_noisy, float(sigma) if record.n_noisy and sigma is not None else None)
        by_key[key][mixture].append(record)
    groups = []
    for key, mixtures in by_key.items():
        cells, notes = [], list(dict.fromkeys(left_out[key]))
        for mixture in sorted(mixtures, key=lambda m: (m[2] or 0.0, m[0], m[1])):
            cell, problems = _cell(mixture, mixtures[mixture])
            notes += problems
            if cell is not None:
                cells.append(cell)
        positive = all(v > 0 for cell in cells for v in cell.values)
        groups.append(Group(key, tuple(cells), "log" if positive else "raw", tuple(notes)))
    return sorted(groups, key=_rank)


def _rank(group: Group) -> tuple[Any, ...]:
    """Best first: measured here, more cells, more seeds, held-out reference, learned features, longer training."""
    key = group.key
    return (
        key.source != "train",
        -len(group.price_cells),
        -group.n_seeds,
        key.reference != "heldout-clean",
        key.metric != "fd",
        key.extractor_name == "pixels",
        -key.duration_nimg,
        key,
    )


def select(groups: Sequence[Group], *, metric: str | None = None, extractor: str | None = None) -> list[Group]:
    """Groups of one metric and one extractor (full `name:hash` or only its name). Raises DataError if none is left."""
    kept = [
        g
        for g in groups
        if (metric is None or g.key.metric == metric)
        and (extractor is None or extractor in (g.key.extractor, g.key.extractor_name))
    ]
    if groups and not kept:
        seen = sorted({f"{g.key.metric} in {g.key.extractor}" for g in groups})
        asked = " in ".join(x for x in (metric, extractor) if x)
        raise DataError(f"no record has {asked}; the records have {', '.join(seen)}")
    return kept
