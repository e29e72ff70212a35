"""The grid of a simulation: one frozen config, planned into independent cells; what cannot be run is named.

A cell (`SimulationCell`) holds everything that determines its result: laws, levels, counts, replicates, seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ambient_theory.bounds import sizes as bounds
from ambient_theory.mixtures.laws import (
    AtomicLaw,
    envelope_grid,
    hard_delta,
    hard_pair,
    pair_law,
    parse_atoms,
    pca_hard_rho,
    quantise_levels,
    scaled,
    separated_law,
)
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import option
from ambient_theory.simulation.ledger import SimulationCell, atoms_of
from ambient_theory.simulation.options import GridOptions

POOLED_BY_WEIGHTS = ("dmm", "clean-only")
PCA_FAMILIES = ("pca-hard", "pca-strong", "pca-envelope")
STRONG_RHO = 3.0


@dataclass(frozen=True)
class Mix:
    """Shares of clean samples: `clean` 1, `noisy` 0, `10:90` 0.1."""

    name: str
    clean_share: float

    def counts(self, n: int) -> tuple[int, int]:
        """(n_clean, n_noisy), n in total."""
        clean = round(n * self.clean_share)
        return clean, n - clean


OF_FILE = "file"
"""The mix whose samples have the noise of a vector of s that was given."""


def noise_settings(noise: ArrayLike) -> dict[str, Any]:
    """Settings of a config by key for samples of total standard deviation s (m,): the mixes `clean`, all at the
    smallest, and `file`, with the distinct values of s, or 64 steps of log s, in their shares.

    Raises UsageError for s that is not finite and > 0.
    """
    s, _ = bounds.check_levels(noise)
    levels, index = quantise_levels(s)
    shares = (np.bincount(index, minlength=len(levels)) / len(s)).tolist()
    return {
        "sigma_clean": float(levels[0]),
        "sigma_noisy": float(levels[-1]),
        "mixes": ("clean", OF_FILE),
        "levels": tuple(levels.tolist()),
        "shares": tuple(shares),
    }


def apportioned(n: int, shares: Sequence[float]) -> tuple[int, ...]:
    """n samples by these shares: whole numbers, the largest remainders rounded up."""
    exact = [n * share for share in shares]
    counts = [math.floor(x + 1e-9) for x in exact]
    for i in sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])[: n - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


def parse_mix(text: str) -> Mix:
    """`clean`, `noisy`, or two numbers `CLEAN:NOISY` of any sum. Raises UsageError with the form."""
    if text in ("clean", "noisy"):
        return Mix(text, 1.0 if text == "clean" else 0.0)
    try:
        clean, noisy = (float(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"mix {text!r} is not one of clean, noisy, CLEAN:NOISY (such as 10:90)") from None
    if not (clean >= 0 and noisy >= 0 and 0 < clean + noisy < math.inf):
        raise UsageError(f"the shares of mix {text!r} must be >= 0 and not both 0")
    return Mix(text, clean / (clean + noisy))


@dataclass(frozen=True, kw_only=True)
class SimulationConfig(GridOptions):
    """What `simulate-gmm` runs: options that go together, with the engine chosen. Raises UsageError on bad values."""

    levels: tuple[float, ...] = option(
        (),
        "Total standard deviations of the mix `file`, rising; found from --noise-file",
        above=0,
        on_command_line=False,
    )
    shares: tuple[float, ...] = option(
        (), "Share of the samples at each of them; found from --noise-file", above=0, on_command_line=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "auto":
            best = "binned" if self.dim == 1 else "wishart" if max(self.k, default=1) <= 2 else "exact"
            object.__setattr__(self, "engine", best)
        for k in self.k:
            bounds.check_k(k)
        bounds.check_levels([self.s_clean, self.s_noisy])
        if self.s_noisy < self.s_clean:
            raise UsageError(f"noisy samples (s = {self.s_noisy:g}) have less noise than clean ones ({self.s_clean:g})")
        for name in ("families", "estimators", "weights"):
            if not getattr(self, name):
                raise UsageError(f"no {name} given: choose one or more")
        if len(self.shares) != len(self.levels) or (self.levels and abs(math.fsum(self.shares) - 1) > 1e-9):
            raise UsageError("levels and shares belong together: one share a level, with sum 1")
        if self.levels and (list(self.levels) != sorted(self.levels) or self.levels[0] != self.s_clean):
            raise UsageError("levels must rise, from sigma_clean on")
        for mix in self.mixes:
            if mix == OF_FILE and not self.levels:
                raise UsageError("mix file is that of a vector of noise levels: give --noise-file")
            if mix != OF_FILE:
                parse_mix(mix)
        if not self.n or min(self.n) < 1:
            raise UsageError("sample sizes n must be whole numbers >= 1")
        pca = [f for f in self.families if f in PCA_FAMILIES]
        if self.dim == 1 and (pca or self.engine == "wishart"):
            what = f"family {pca[0]}" if pca else "engine wishart"
            raise UsageError(f"{what} needs --dim 2 or more: on the line there is no subspace to find")
        if self.dim > 1 and self.engine == "binned":
            raise UsageError("engine binned is for the line: choose wishart or exact with --dim > 1")
        if self.dim > 1 and (bad := [e for e in self.estimators if e in ("em", "npmle", "mle")]):
            raise UsageError(f"estimator {bad[0]} is simulated on the line only: use dmm, clean-only, mean-only")
        if self.engine == "wishart" and max(self.k) > 2:
            raise UsageError("engine wishart covers k <= 2 (a one-dimensional subspace): use --engine exact for k >= 3")
        if self.engine == "exact" and (bad := [e for e in self.estimators if e in ("em", "npmle", "mle")]):
            raise UsageError(f"estimator {bad[0]} is simulated from bin counts: use --engine binned")
        if pca and any(k != 2 for k in self.k):
            raise UsageError(f"family {pca[0]} is a law of two atoms: use k = 2")
        if ("fixed" in self.families) != (self.atoms is not None):
            raise UsageError("family fixed and --atoms go together: give both or neither")
        if self.atoms is not None:
            law = parse_atoms(self.atoms).check_inside(self.radius)
            if any(k < law.k for k in self.k):
                raise UsageError(f"{law.k} atoms given, but the estimator has k = {min(self.k)}")


@dataclass(frozen=True)
class Skipped:
    """A cell that was asked for and is not run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class GridPlan:
    cells: tuple[SimulationCell, ...]
    skipped: tuple[Skipped, ...]


def plan(config: SimulationConfig) -> GridPlan:
    """All cells of the grid in a fixed order (family, k, mix, n, delta), and those left out by name."""
    cells: list[SimulationCell] = []
    skipped: list[Skipped] = []
    for family in config.families:
        for k in config.k:
            for mix in config.mixes:
                for n in config.n:
                    name = f"{family}-k{k}-d{config.dim}-{mix.replace(':', '_')}-n{n}"
                    if n < k:
                        skipped.append(Skipped(name, f"n = {n} samples for k = {k} atoms"))
                        continue
                    try:
                        cells += _cells(config, family, k, mix, n, name)
                    except _Outside as reason:
                        skipped.append(Skipped(name, str(reason)))
    return GridPlan(tuple(cells), tuple(skipped))


class _Outside(Exception):
    pass


def levels_and_counts(config: SimulationConfig, mix: str, n: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Noise levels that occur among n samples of a mix, and how many samples have each."""
    if mix == OF_FILE:
        levels, counts = config.levels, apportioned(n, config.shares)
    else:
        levels, counts = (config.s_clean, config.s_noisy), parse_mix(mix).counts(n)
    used = [(s, c) for s, c in zip(levels, counts, strict=True) if c]
    if len({s for s, _ in used}) < len(used):
        return (config.s_clean,), (n,)
    return tuple(s for s, _ in used), tuple(c for _, c in used)


def _cells(config: SimulationConfig, family: str, k: int, mix: str, n: int, name: str) -> list[SimulationCell]:
    levels, counts = levels_and_counts(config, mix, n)
    clean = parse_mix(mix).counts(n)[0] if mix != OF_FILE else counts[0] if levels[0] == config.s_clean else 0
    noisy = n - clean

    def cell(
        laws: Sequence[AtomicLaw], delta: float | None = None, radius: float = 0.0, part: str = ""
    ) -> SimulationCell:
        return SimulationCell(
            name=name + part,
            family=family,
            k=k,
            d=config.dim,
            mix=mix,
            n=n,
            n_clean=clean,
            n_noisy=noisy,
            levels=levels,
            counts=counts,
            radius=max(config.radius, radius),
            reps=config.reps,
            seed=config.seed,
            engine=config.engine,
            bins=config.bins,
            delta=delta,
            laws=tuple(map(atoms_of, laws)),
            estimators=_estimators(config, clean),
        )

    if family == "envelope":
        pair = hard_pair(k)
        deltas = [float(delta) for delta in envelope_grid(config.radius)]
        return [cell([scaled(p, delta) for p in pair], delta, part=f"-delta{delta:.4f}") for delta in deltas]
    if family == "hard":
        delta = hard_delta(k, bounds.n_l(k, levels, counts), config.snr)
        if delta > config.radius:
            raise _Outside(f"the hard pair needs delta = {delta:.3g}, outside the ball of radius R = {config.radius:g}")
        return [cell([scaled(p, delta) for p in hard_pair(k)], delta)]
    if family == "pca-hard":
        rho = pca_hard_rho(config.dim, bounds.n_d(levels, counts))
        if rho > config.radius:
            raise _Outside(f"the signal rho = {rho:.3g} lies outside the ball of radius R = {config.radius:g}")
        return [cell([pair_law(rho)], rho)]
    if family == "pca-envelope":
        grid = [float(rho) for rho in envelope_grid(config.radius)]
        return [cell([pair_law(rho)], rho, part=f"-rho{rho:.4f}") for rho in grid]
    if family == "pca-strong":
        rho = STRONG_RHO * config.s_clean
        return [cell([pair_law(rho)], rho, radius=1.25 * rho)]
    if family == "separated":
        law = separated_law(k, config.s_clean)
        return [cell([law], radius=1.25 * law.radius)]
    assert config.atoms is not None
    return [cell([parse_atoms(config.atoms)])]


def _estimators(config: SimulationConfig, clean: int) -> tuple[tuple[str, str], ...]:
    """(name, weights) of every estimator; `clean-only` needs a clean sample."""
    return tuple(
        (name, weights)
        for name in config.estimators
        for weights in (config.weights if name in POOLED_BY_WEIGHTS else ("-",))
        if not (name == "clean-only" and not clean)
    )
