"""From records to denoising errors by level: the curves on which a noisy image is priced band by band.

A record of metric `denoise` is the held-out clean error E(s) of one model at one diffusion level s. The levels of one
model belong together (its seed moves all of them), so they are no scores of their own but one curve: a `LevelTable`
holds the curves of all comparable models, cell by cell and seed by seed. Comparable are models of the same data set,
method, training duration and checkpoint rule whose errors were measured on the same images, with the same noise, at the
same levels.

Checkpoint rules: `last` and `heldout-best` are what a training writes. `level-best` is made here of the `last` ones:
of the durations at which a model was scored, the smallest error at each level. It is what a sampler spliced of
checkpoints would have, and it flatters slightly: the choice is made on the images that score it.

The unit of replication is the training seed, with seeds as blocks (`compare.cells.blocks`): variances are those of
log E of one model beside what all models of its seed have in common, pooled over cells, with their correlation between
levels; models of few images scatter more, by a power of their number that the table itself says. Models of noisy images
alone are no part of that pool: they have a scatter of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.cells.blocks import ALIKE, Blocked, blocked_by_size
from ambient_theory.compare.cells.grouping import level_of, method_words, same_value, without_noise
from ambient_theory.compare.cells.tables import bartlett, is_control, mixture_words
from ambient_theory.shared.eigenvalues import EIGENVALUES, WHITE, Eigenvalues
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.records import Record

Floats = NDArray[np.float64]
DENOISE = "denoise"
LEVEL_BEST = "level-best"
RULES = {
    "last": "at fixed compute",
    "heldout-best": "at the held-out best",
    LEVEL_BEST: "at each level's best duration",
}
"""Checkpoint rules in words."""


@dataclass(frozen=True, order=True)
class CurveKey:
    """What must agree before two error curves may be compared. duration_nimg 0 stands for unknown; images: hash of the
    held-out images; evaluation: short words and a hash of the settings and levels; told: the noise that the training
    was told of its noisy images, empty for the truth; noise: its kind, empty for white."""

    dataset: str
    duration_nimg: int
    checkpoint: str
    method: str
    images: str
    n_eval: int
    dim: int
    evaluation: str
    told: str = ""
    noise: str = ""

    @property
    def rule(self) -> str:
        """The checkpoint rule in words."""
        return RULES.get(self.checkpoint, self.checkpoint or "checkpoint unknown")

    def label(self) -> str:
        """In words, for tables and captions."""
        parts = [self.dataset, self.rule]
        if self.duration_nimg:
            upto = "up to " if self.checkpoint != "last" else ""
            parts.append(f"{upto}{self.duration_nimg:,} training images")
        if self.method:
            parts.append(f"method {self.method}")
        if self.noise:
            parts.append(f"noise {self.noise}")
        if self.told:
            parts.append(f"told that the noise is {self.told}")
        parts.append(f"{self.n_eval:,} held-out images")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, eq=False)
class LevelCell:
    """One training mixture. log_error [seeds, levels]: log E(s) of each of its models. sigma_n: None without noisy."""

    n_clean: int
    n_noisy: int
    sigma_n: float | None
    seeds: tuple[int | None, ...]
    log_error: Floats

    @property
    def name(self) -> str:
        return mixture_words(self.n_clean, self.n_noisy, self.sigma_n)

    def to_dict(self) -> dict[str, Any]:
        """What was trained, without the errors."""
        amounts = {"n_clean": self.n_clean, "n_noisy": self.n_noisy, "sigma_n": self.sigma_n}
        return {"cell": self.name, **amounts, "seeds": len(self.seeds)}

    @property
    def control(self) -> bool:
        """Noise so small or so large that the worth is known beforehand."""
        return self.sigma_n is not None and is_control(self.sigma_n)


@dataclass(frozen=True, eq=False)
class LevelTable:
    """Comparable cells over levels s [L], ascending. notes: what was left out and why. noise: of the noisy images."""

    key: CurveKey
    levels: Floats
    cells: tuple[LevelCell, ...]
    notes: tuple[str, ...] = ()
    noise: Eigenvalues = WHITE

    @property
    def clean(self) -> tuple[LevelCell, ...]:
        """Cells without noisy images, by size."""
        return tuple(sorted((c for c in self.cells if not c.n_noisy), key=lambda c: c.n_clean))

    @property
    def mixtures(self) -> tuple[LevelCell, ...]:
        """Cells with clean and noisy images, by noise and size; controls among them."""
        mixed = (c for c in self.cells if c.n_noisy and c.n_clean)
        return tuple(sorted(mixed, key=lambda c: (c.sigma_n or 0.0, c.n_clean, c.n_noisy)))

    @property
    def noisy_only(self) -> tuple[LevelCell, ...]:
        """Cells without clean images: they follow another law and are fitted with none."""
        return tuple(sorted((c for c in self.cells if not c.n_clean), key=lambda c: (c.sigma_n or 0.0, c.n_noisy)))

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """Noise levels of the mixtures, ascending, without those of controls."""
        return tuple(sorted({c.sigma_n for c in self.mixtures if c.sigma_n is not None and not c.control}))

    @property
    def n_seeds(self) -> int:
        return max((len(c.seeds) for c in self.cells), default=0)

    @cached_property
    def blocked(self) -> Blocked:
        """log E of all cells with seeds as blocks."""
        return blocked_cells(self.cells, [c.log_error for c in self.cells])

    def means(self, cells: Sequence[LevelCell]) -> tuple[Floats, Floats]:
        """Mean log errors and replicates [n, L] of some of the cells, see `Blocked`."""
        places = {id(c): k for k, c in enumerate(self.cells)}
        chosen = [places[id(c)] for c in cells]
        return self.blocked.mean[chosen], self.blocked.replicates[chosen]

    @cached_property
    def scatter(self) -> Scatter:
        """Of log E of one model of typical size beside what is common to all models of its seed: for comparisons of
        cells."""
        return Scatter.of(self.blocked.rest, self.blocked.dof())

    @cached_property
    def whole_scatter(self) -> Scatter:
        """Of log E of one model with clean images, its seed's common part included: for a cell by itself."""
        own = [c for c in self.cells if c.n_clean] or self.cells
        rests = [c.log_error - c.log_error.mean(axis=0) for c in own]
        return Scatter.of(rests, sum(len(r) - 1 for r in rests))


@dataclass(frozen=True, eq=False)
class Scatter:
    """Covariance over levels [L, L] of log E of one model, pooled: `sum d d' / dof`, d what is left of each.

    dof is 0, and the covariance zero, from one seed a cell and where the seeds agree to the last digit (copies).
    """

    covariance: Floats
    dof: int

    @classmethod
    def of(cls, rests: Sequence[Floats], dof: int) -> Scatter:
        """rests: of each cell [seeds, L]."""
        d = np.vstack(list(rests))
        total = d.T @ d
        if dof < 1 or np.any(np.diag(total) <= ALIKE):
            return cls(np.zeros_like(total), 0)
        return cls(total / dof, dof)

    @property
    def deviation(self) -> Floats:
        """Standard deviation of one seed at each level; ones where nothing is known, so that it can weigh."""
        return np.sqrt(np.diag(self.covariance)) if self.dof else np.ones(len(self.covariance))

    @property
    def correlation(self) -> Floats:
        """Correlation between levels [L, L]; the identity where nothing is known."""
        if not self.dof:
            return np.eye(len(self.covariance))
        d = self.deviation
        return self.covariance / np.outer(d, d)


def blocked_cells(cells: Sequence[LevelCell], values: Sequence[Floats]) -> Blocked:
    """Log outcomes [seeds, L] of each of the cells with seeds as blocks; models of few images scatter more."""
    amounts = np.array([(c.n_clean, c.n_noisy) for c in cells], dtype=float).reshape(len(cells), 2)
    return blocked_by_size([c.seeds for c in cells], values, *amounts.T)


def nats_quadrature(levels: Floats) -> Floats:
    """Weights w [L] with `int f(s) s^-3 ds ~ w f`: the trapezoidal rule for f s^-2 over ln s, as `nats` are summed."""
    x = np.log(levels)
    width = np.gradient(x) if len(x) > 1 else np.ones(1)
    if len(x) > 1:
        width[[0, -1]] /= 2
    return np.asarray(width / np.square(levels))


# ------------------------------------------------------------------------------------------------------- from records

Mixture = tuple[int, int, float | None]


def has_levels(records: Iterable[Record]) -> bool:
    """Whether any record is an error at a level."""
    return any(r.metric == DENOISE and r.level is not None for r in records)


def level_tables(records: Iterable[Record], *, level_best: bool = True) -> list[LevelTable]:
    """Every table of comparable error curves of the records' trainings, those with most cells first.

    level_best: add the tables of that rule where a data set was scored at several durations. Models whose errors were
    measured on other images, with other noise or at other levels stand in tables of their own, which say so.
    Raises DataError for a `denoise` record without level, noise level or a positive value, or if there is none at all.
    """
    rows = [r for r in records if r.metric == DENOISE and r.source == "train"]
    curves, noises = _curves(rows), _noises(rows)
    if not curves:
        raise DataError(
            f"no record has metric {DENOISE!r} and a level: train with held-out clean images, which are scored by level"
        )
    if level_best:
        curves |= _best_of_durations(curves)
    _share_clean(curves)
    peers: dict[tuple[Any, ...], set[CurveKey]] = defaultdict(set)
    for key, _ in curves:
        peers[_condition(key)].add(key)
    tables = []
    for key, levels in curves:
        cells, notes = _cells(curves[key, levels], len(levels))
        if len(peers[_condition(key)]) > 1:
            notes.append(
                f"{key.dataset}: these records hold {len(peers[_condition(key)])} evaluations that differ in images, "
                "noise or levels; they are kept apart and never compared"
            )
        if key.noise and key.noise not in noises:
            notes.append(
                f"{key.dataset}: the records do not hold the eigenvalues of noise {key.noise!r}, so that it is "
                "taken for white where it is said which levels lie above it"
            )
        tables.append(LevelTable(key, np.array(levels), tuple(cells), tuple(notes), noises.get(key.noise, WHITE)))
    return sorted(tables, key=_rank)


def _condition(key: CurveKey) -> tuple[Any, ...]:
    return (key.dataset, key.duration_nimg, key.checkpoint, key.method, key.told, key.noise)


def _share_clean(curves: Curves) -> None:
    """Give models of clean images alone to those of another kind of noise, and that were told another: to clean images
    it is nothing."""
    for key, levels in [k for k in curves if k[0].told or k[0].noise]:
        for mixture, seeds in curves.get((replace(key, told="", noise=""), levels), {}).items():
            if not mixture[1]:
                curves[key, levels].setdefault(mixture, seeds)


def _rank(table: LevelTable) -> tuple[Any, ...]:
    """Best first: told the truth, white, more mixtures, clean sizes and seeds, longer, fixed compute first."""
    order = list(RULES).index(table.key.checkpoint) if table.key.checkpoint in RULES else len(RULES)
    return (
        bool(table.key.told),
        bool(table.key.noise),
        -len(table.mixtures),
        -len(table.clean),
        -table.n_seeds,
        -table.key.duration_nimg,
        order,
        table.key,
    )


Curves = dict[tuple[CurveKey, tuple[float, ...]], dict[Mixture, dict[int | None, list[Floats]]]]


def _curves(records: Iterable[Record]) -> Curves:
    """The error curves by key, levels, mixture and seed; a seed has two where two values were recorded for it."""
    models: dict[tuple[Any, ...], dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for r in records:
        if r.level is None or not r.level > 0 or not r.value > 0:
            raise DataError(
                f"a denoise record of {r.dataset} has level {r.level!r} and value {r.value!r}: both must be > 0"
            )
        sigma_n = r.sigma_n[0] if isinstance(r.sigma_n, tuple) and len(r.sigma_n) == 1 else r.sigma_n
        if r.n_noisy and not isinstance(sigma_n, int | float):
            if isinstance(sigma_n, tuple):
                continue  # several noise levels in one mixture: no one worth can be read from it
            raise DataError(f"a denoise record of {r.dataset} has {r.n_noisy} noisy images and no sigma_n")
        if r.n_clean + r.n_noisy == 0:
            raise DataError(f"a denoise record of {r.dataset} has neither clean nor noisy images")
        settings = {**r.evaluation, "reference": r.reference}
        method, told, kind = without_noise(r.method)
        key = (
            r.dataset,
            r.duration_nimg or 0,
            r.checkpoint or "",
            method_words(method),
            str(r.extra.get("images", "")),
            r.n_eval,
            int(r.extra.get("dim", 0)),
            content_hash(settings, 6),
            told,
            kind,
        )
        mixture = (r.n_clean, r.n_noisy, float(sigma_n) if r.n_noisy and isinstance(sigma_n, int | float) else None)
        models[key, mixture, r.seed][level_of(r.level)].append(r)
    out: Curves = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (key, mixture, seed), by_level in models.items():
        levels = tuple(sorted(by_level))
        rows = [by_level[s] for s in levels]
        found = out[CurveKey(*key), levels][mixture][seed]
        found.append(np.log([r[0].value for r in rows]))
        if not all(same_value(r[0], other) for r in rows for other in r[1:]):
            found.append(np.log([_other_value(r) for r in rows]))
    return dict(out)


def _noises(records: Iterable[Record]) -> dict[str, Eigenvalues]:
    """The eigenvalues of each kind of noise by its name. Where those of a name differ (maps of other images), the mean.
    Raises DataError for eigenvalues that are none."""
    found: dict[str, set[Eigenvalues]] = defaultdict(set)
    for r in records:
        kind = without_noise(r.method)[2]
        if kind and EIGENVALUES in r.extra:
            found[kind].add(Eigenvalues.from_lists(r.extra[EIGENVALUES], f"a record of {r.dataset}"))
    return {kind: Eigenvalues.mean(sorted(several, key=repr)) for kind, several in found.items()}


def _other_value(records: Sequence[Record]) -> float:
    """The value that differs most from the first."""
    first = records[0].value
    return max((r.value for r in records), key=lambda x: abs(x - first))


def _best_of_durations(curves: Curves) -> Curves:
    """Curves of the rule `level-best`: the least error at each level over the durations of the `last` checkpoints.

    Only models that were scored at every one of at least two durations have one.
    """
    groups: dict[tuple[CurveKey, tuple[float, ...]], dict[int, Any]] = defaultdict(dict)
    for (key, levels), cells in curves.items():
        if key.checkpoint == "last" and key.duration_nimg:
            values = {f.name: getattr(key, f.name) for f in fields(key)}
            shared = CurveKey(**{**values, "duration_nimg": 0, "checkpoint": LEVEL_BEST})
            groups[shared, levels][key.duration_nimg] = cells
    out: Curves = {}
    for (shared, levels), by_duration in groups.items():
        if len(by_duration) < 2:
            continue
        longest = max(by_duration)
        values = {f.name: getattr(shared, f.name) for f in fields(shared)}
        made: dict[Mixture, dict[int | None, list[Floats]]] = {}
        for mixture, by_seed in by_duration[longest].items():
            for seed in by_seed:
                found = [cells.get(mixture, {}).get(seed, []) for cells in by_duration.values()]
                if all(len(x) == 1 for x in found):
                    made.setdefault(mixture, {})[seed] = [np.min([x[0] for x in found], axis=0)]
        if made:
            out[CurveKey(**{**values, "duration_nimg": longest}), levels] = made
    return out


def _cells(
    curves: Mapping[Mixture, Mapping[int | None, list[Floats]]], levels: int
) -> tuple[list[LevelCell], list[str]]:
    """The cells of one table; a seed that was recorded with two values refuses its cell."""
    cells, notes = [], []
    for mixture in sorted(curves, key=lambda m: (m[2] or 0.0, m[0], m[1])):
        by_seed = curves[mixture]
        values = np.array([x[0] for x in by_seed.values()]).reshape(len(by_seed), levels)
        cell = LevelCell(*mixture, tuple(by_seed), values)
        twice = [seed for seed, x in by_seed.items() if len(x) > 1]
        if twice:
            notes.append(
                f"{cell.name}: seed {twice[0]} was recorded with two different values, so two experiments are mixed; "
                "the cell is left out"
            )
            continue
        cells.append(cell)
    return cells, notes


def check_priceable(table: LevelTable) -> None:
    """Raise DataError, in one sentence, where no noisy image of the table can be priced."""
    name = table.key.dataset
    sizes = {c.n_clean for c in table.clean}
    if not table.mixtures:
        raise DataError(
            f"{name}: no model was trained on clean and noisy images together, so nothing prices a noisy one"
        )
    if not sizes:
        raise DataError(
            f"{name}: no model was trained on clean images alone, so there is no curve to read a mixture on; train "
            "some at sizes around those of the mixtures"
        )
    if len(sizes) < 2:
        raise DataError(
            f"{name}: all clean-only models have the same {sizes.pop():,} images; train some at a smaller and at a "
            "larger number"
        )


def uneven_scatter(table: LevelTable) -> float | None:
    """p value, over all levels, of Bartlett's test that the scatter over seeds is the same in every cell with clean
    images, but for what the sizes of the cells explain (`compare.cells.blocks`).

    The p values of the levels are dependent; their harmonic mean (Wilson 2019) needs no independence. None where fewer
    than two cells have three seeds.
    """
    root = np.sqrt(table.blocked.weight)
    scaled = [root[k] * c.log_error for k, c in enumerate(table.cells) if len(c.seeds) > 2 and c.n_clean]
    if len(scaled) < 2 or not table.scatter.dof:
        return None
    found = [bartlett([x[:, k] for x in scaled]) for k in range(len(table.levels))]
    ps = [p for p in found if p is not None]
    return len(ps) / sum(1 / max(p, 1e-300) for p in ps) if ps else None
