"""Sums of Hermite moments by noise level over a stream of samples: O(n) time, O(levels k) memory.

Samples are shifted and scaled by a fixed origin and unit (taken from the first chunk), so that powers keep their
digits far from zero. Each sample enters with its own s; levels (bins of log s) matter for the weights only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.laws import quantise_levels
from ambient_theory.mixtures.moments import LevelMoments, hermite
from ambient_theory.mixtures.subspace import Subspace, weighted_subspace
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
CHUNK = 250_000
LOG_STEP = 0.02
FEW_LEVELS = 8


def hermite_sums(z: Floats, s: float, order: int) -> Floats:
    """Sums over z (n,) of `gamma_1 .. gamma_J` with one noise s, (J,): from power sums, by dot products."""
    powers = np.empty(order + 1)
    powers[0], powers[1] = len(z), z.sum()
    half = z  # z^h, with h = j // 2 below
    for j in range(2, order + 1):
        if j % 2 == 0:
            powers[j] = half @ half
        else:
            longer = half * z
            powers[j] = half @ longer
            half = longer
    out = np.empty(order)
    for j in range(1, order + 1):
        c = np.polynomial.hermite_e.herme2poly([0.0] * j + [1.0])
        out[j - 1] = (c * s ** (j - np.arange(j + 1.0))) @ powers[: j + 1]
    return out


def level_moments(x: Floats, s: Floats, order: int) -> LevelMoments:
    """Moments by level of many samples of the same noise, with the levels of a `MomentStream` of each. x: (B, n); s:
    (n,). Centred and scaled by the caller, so that powers keep their digits."""
    levels, index = quantise_levels(s)
    key = np.round(np.log(levels / s.min()) / LOG_STEP)[index]
    order_of = np.argsort(key, kind="stable")
    _, starts, counts = np.unique(key[order_of], return_index=True, return_counts=True)
    sums = np.add.reduceat(hermite(x[:, order_of], s[order_of], order), starts, axis=-1)
    root = np.sqrt(np.add.reduceat(s[order_of] ** 2, starts) / counts)
    return LevelMoments(root, counts.astype(float), np.moveaxis(sums / counts, 0, -1))


class MomentStream:
    """Accumulates samples on the line; `moments()` gives what the estimators need. Adding chunks in any order and
    of any size gives the same sums up to rounding."""

    def __init__(self, order: int, origin: float, unit: float):
        self.order, self.origin, self.unit = order, float(origin), float(unit)
        self.low, self.high = np.inf, -np.inf
        self._sums: dict[int, Floats] = {}  # log-level -> [n, sum s^2, sum gamma_1, ..., sum gamma_J]

    @classmethod
    def starting_at(cls, order: int, x: Floats, s: Floats) -> MomentStream:
        """A stream whose origin and unit suit a first chunk: its median, and its smallest noise."""
        return cls(order, float(np.median(x[:CHUNK])), float(s.min()))

    @property
    def n(self) -> float:
        return float(sum(row[0] for row in self._sums.values()))

    def add(self, x: Floats, s: Floats, counts: Floats | None = None) -> MomentStream:
        """Add samples x (n,) with noise s (n,) or (1,), each `counts` (n,) times."""
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            self._add(x[part], s if s.size == 1 else s[part], None if counts is None else counts[part])
        return self

    def _add(self, x: Floats, s: Floats, counts: Floats | None) -> None:
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        z, noise = (x - self.origin) / self.unit, s / self.unit
        few = noise if s.size == 1 else np.unique(noise[:512])
        if counts is None and len(few) <= FEW_LEVELS:
            members = [z] if s.size == 1 else [z[noise == level] for level in few]
            if sum(map(len, members)) == len(z):  # every sample has one of the few levels
                for level, part in zip(few, members, strict=True):
                    self._put(
                        float(level), len(part), len(part) * float(level) ** 2, hermite_sums(part, level, self.order)
                    )
                return
        noise = np.broadcast_to(noise, len(z))
        levels, index = quantise_levels(noise)
        mass = np.ones(len(z)) if counts is None else counts
        gamma = hermite(z, noise, self.order)
        sizes = np.bincount(index, weights=mass, minlength=len(levels))
        squares = np.bincount(index, weights=mass * noise**2, minlength=len(levels))
        sums = np.stack([np.bincount(index, weights=mass * g, minlength=len(levels)) for g in gamma], axis=1)
        for level, size, square, row in zip(levels, sizes, squares, sums, strict=True):
            if size > 0:
                self._put(float(level), float(size), float(square), row)

    def _put(self, level: float, n: float, square: float, sums: Floats) -> None:
        key = round(np.log(level) / LOG_STEP)
        row = self._sums.setdefault(key, np.zeros(self.order + 2))
        row += np.concatenate([[n, square], sums])

    def moments(self) -> LevelMoments:
        """Level moments of `Y - origin` in the caller's units. Levels: root mean squares, at most 64."""
        table = np.array([self._sums[key] for key in sorted(self._sums)])
        if len(table) > 64:
            _, index = quantise_levels(np.sqrt(table[:, 1] / table[:, 0]))
            table = np.stack([np.bincount(index, weights=column) for column in table.T], axis=1)
        n = table[:, 0]
        means = table[:, 2:] / n[:, None] * self.unit ** np.arange(1.0, self.order + 1)
        return LevelMoments(np.sqrt(table[:, 1] / n) * self.unit, n, means)


class SpaceStream:
    """A stream in d dimensions: samples are kept up to `pilot`; beyond, the subspace they gave is frozen and only
    moments inside it and the weighted mean are kept. Beyond the pilot it serves `auto` and `dmm` with k <= 2."""

    def __init__(self, k: int, method: str, pilot: int = 20_000):
        self.k, self.method, self.pilot = k, method, pilot
        self.order = 2 * k - 1
        self.n = 0
        self.frozen: Subspace | None = None
        self.line = MomentStream(self.order, 0.0, 1.0)
        self._kept: list[tuple[Floats, Floats]] = []
        self._weighted_sum: Floats = np.zeros(0)
        self._precision = 0.0

    def add(self, x: Floats, s: Floats, rng: np.random.Generator) -> None:
        """Add samples x (n, d) with noise s (n,). Raises UsageError beyond the pilot where moments do not suffice."""
        if self.n + len(x) > self.pilot and (self.method not in ("auto", "dmm") or self.k > 2):
            raise UsageError(
                f"partial_fit keeps {self.pilot} samples; beyond them it needs method='auto' or 'dmm' and "
                f"n_components <= 2 (or one feature), not method={self.method!r} with n_components={self.k}: use fit"
            )
        self.n += len(x)
        if self.frozen is not None:
            self._pass_on(x, s)
            return
        self._kept.append((x, np.array(s)))
        if self.n > self.pilot:
            kept_x, kept_s = self.samples()
            self.frozen = weighted_subspace(kept_x, kept_s, self.k - 1, rng)
            self.line = MomentStream.starting_at(self.order, self._coordinate(kept_x), kept_s)
            self._weighted_sum = np.zeros(kept_x.shape[1])
            self._kept = []
            self._pass_on(kept_x, kept_s)

    def samples(self) -> tuple[Floats, Floats]:
        """All samples, while they are kept."""
        return np.concatenate([x for x, _ in self._kept]), np.concatenate([s for _, s in self._kept])

    def subspace(self) -> Subspace:
        """The frozen subspace around the weighted mean of everything seen."""
        assert self.frozen is not None
        return replace(self.frozen, centre=self._weighted_sum / self._precision)

    def _coordinate(self, x: Floats) -> Floats:
        assert self.frozen is not None
        return self.frozen.project(x)[:, 0] if self.k > 1 else x[:, 0]

    def _pass_on(self, x: Floats, s: Floats) -> None:
        self.line.add(self._coordinate(x), s)
        precision = s**-2.0
        self._weighted_sum = self._weighted_sum + precision @ x
        self._precision += float(precision.sum())
