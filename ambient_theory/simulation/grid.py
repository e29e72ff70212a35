"""The grid of a simulation: one frozen config, planned into independent cells; what cannot be run is named.

A cell (`SimulationCell`) holds everything that determines its result: laws, levels, counts, replicates, seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ambient_theory.bounds import sizes as bounds
from ambient_theory.mixtures.laws import (
    AtomicLaw,
    envelope_grid,
    hard_delta,
    hard_pair,
    pair_law,
    parse_atoms,
    pca_hard_rho,
    scaled,
    separated_law,
)
from ambient_theory.mixtures.moments import WEIGHTS
from ambient_theory.shared.errors import UsageError
from ambient_theory.simulation.ledger import SimulationCell, atoms_of

FAMILIES = ("separated", "hard", "envelope", "fixed", "pca-hard", "pca-strong")
ENGINES = ("binned", "exact", "wishart")
ESTIMATORS = ("dmm", "clean-only", "mean-only", "mle", "em", "npmle")
POOLED_BY_WEIGHTS = ("dmm", "clean-only")
PCA_FAMILIES = ("pca-hard", "pca-strong")
STRONG_RHO = 3.0
DEFAULT_N = tuple(round(10 ** (3 + i / 2)) for i in range(11))


@dataclass(frozen=True)
class Mix:
    """Shares of clean samples: `clean` 1, `noisy` 0, `10:90` 0.1."""

    name: str
    clean_share: float

    def counts(self, n: int) -> tuple[int, int]:
        """(n_clean, n_noisy), n in total."""
        clean = round(n * self.clean_share)
        return clean, n - clean


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
class SimulationConfig:
    """What `simulate-gmm` runs. s_clean, s_noisy are total standard deviations. Raises UsageError on bad values."""

    k: tuple[int, ...] = (2,)
    dim: int = 1
    s_clean: float = 1.0
    s_noisy: float = 2.0
    mixes: tuple[str, ...] = ("clean", "noisy", "10:90")
    n: tuple[int, ...] = DEFAULT_N
    families: tuple[str, ...] = ("separated", "hard")
    estimators: tuple[str, ...] = ("dmm", "mean-only")
    weights: tuple[str, ...] = ("gls",)
    reps: int = 500
    engine: str = "auto"
    seed: int = 0
    radius: float = 2.0
    bins: int = 500
    snr: float = 2.0
    atoms: str | None = None

    def __post_init__(self) -> None:
        if self.engine == "auto":
            best = "binned" if self.dim == 1 else "wishart" if max(self.k, default=1) <= 2 else "exact"
            object.__setattr__(self, "engine", best)
        for k in self.k:
            bounds.check_k(k)
        if self.dim < 1:
            raise UsageError(f"the dimension must be >= 1, not {self.dim}")
        bounds.check_levels([self.s_clean, self.s_noisy])
        if self.s_noisy < self.s_clean:
            raise UsageError(f"noisy samples (s = {self.s_noisy:g}) have less noise than clean ones ({self.s_clean:g})")
        _check_choices("family", self.families, FAMILIES)
        _check_choices("estimator", self.estimators, ESTIMATORS)
        _check_choices("weights", self.weights, WEIGHTS)
        _check_choices("engine", (self.engine,), ENGINES)
        for mix in self.mixes:
            parse_mix(mix)
        if not self.n or min(self.n) < 1:
            raise UsageError("sample sizes n must be whole numbers >= 1")
        if self.reps < 2:
            raise UsageError(f"replicates must be >= 2 (a standard error is needed), not {self.reps}")
        if self.seed < 0:
            raise UsageError(f"the seed must be >= 0, not {self.seed}")
        if not (math.isfinite(self.radius) and self.radius > 0 and math.isfinite(self.snr) and self.snr > 0):
            raise UsageError("the radius R and snr must be finite and > 0")
        if self.bins < 50:
            raise UsageError(f"at least 50 bins are needed, not {self.bins}")
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


def _check_choices(name: str, values: Sequence[str], allowed: Sequence[str]) -> None:
    if not values:
        raise UsageError(f"no {name} given: choose from {', '.join(allowed)}")
    for value in values:
        if value not in allowed:
            raise UsageError(f"unknown {name} {value!r}: choose from {', '.join(allowed)}")


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
            for mix in map(parse_mix, config.mixes):
                for n in config.n:
                    name = f"{family}-k{k}-d{config.dim}-{mix.name.replace(':', '_')}-n{n}"
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


def _cells(config: SimulationConfig, family: str, k: int, mix: Mix, n: int, name: str) -> list[SimulationCell]:
    clean, noisy = mix.counts(n)
    levels = tuple(s for s, c in ((config.s_clean, clean), (config.s_noisy, noisy)) if c)
    counts = tuple(c for c in (clean, noisy) if c)
    if levels == (config.s_clean,) * 2:
        levels, counts = (config.s_clean,), (n,)

    def cell(
        laws: Sequence[AtomicLaw], delta: float | None = None, radius: float = 0.0, part: str = ""
    ) -> SimulationCell:
        return SimulationCell(
            name=name + part,
            family=family,
            k=k,
            d=config.dim,
            mix=mix.name,
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


def whole(value: float, name: str) -> int:
    """A number of samples as an int. Raises UsageError unless it is finite and >= 1."""
    if not (math.isfinite(value) and value >= 1):
        raise UsageError(f"{name} must be a number of samples >= 1, not {value!r}")
    return round(value)


def parse_sizes(text: str, per_decade: int = 2) -> tuple[int, ...]:
    """`1e3..1e8` (even in log n, `per_decade` points a decade) or `1000,1e6`. Raises UsageError with the form."""
    try:
        if ".." in text:
            low, high = (float(part) for part in text.split(".."))
            if not 1 <= low <= high < math.inf:
                raise ValueError
            points = int(math.floor(math.log10(high / low) * per_decade + 1e-9)) + 1
            sizes = [round(low * 10 ** (i / per_decade)) for i in range(points)]
        else:
            sizes = [round(float(part)) for part in text.split(",") if part.strip()]
    except (ValueError, OverflowError):
        raise UsageError(f"sample sizes {text!r} are neither LOW..HIGH nor a comma-separated list of numbers") from None
    if not sizes or min(sizes) < 1:
        raise UsageError(f"sample sizes {text!r}: every n must be >= 1")
    return tuple(dict.fromkeys(sizes))
