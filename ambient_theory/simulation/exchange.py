"""The exchange rate at equal error, simulated: how many clean samples replace one noisy sample, over the separation.

For the hard pair at half-width delta, the error of n_clean clean and n_noisy noisy samples is compared with the curve
of clean samples alone: `c = (n* - n_clean) / n_noisy`, where `E(n*, 0) = E(n_clean, n_noisy)` (log-log interpolation).
Beside it stand the efficient estimator's c from Fisher information, the marginal worth, and the weights s^-2m of the
laws that speak of k atoms, s = s_noisy/s_clean. The interval redraws the reference curve as well as the mixture's
error. Where the noisy samples together are worth less than half the clean ones, c cannot be resolved and is not
reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.bounds import sizes as bounds
from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.mixtures.fisher import efficient_exchange_rate, marginal_worth
from ambient_theory.mixtures.laws import hard_pair, scaled
from ambient_theory.shared.errors import UsageError
from ambient_theory.simulation.ledger import SimulationCell, atoms_of
from ambient_theory.simulation.options import ExchangeOptions, Simulated

Floats = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExchangeConfig(Simulated, ExchangeOptions):
    """deltas in units of s_clean; n_noisy None means `2 n_clean s^(4k-2)`, enough to be resolved at every delta."""

    k: int = 2
    estimator: str = "dmm"
    weights: str = "gls"

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds.check_k(self.k, least=2)
        bounds.check_levels([self.s_clean, self.s_noisy])
        if self.s_noisy <= self.s_clean:
            raise UsageError(f"an exchange rate needs s_noisy > s_clean, not {self.s_noisy:g} <= {self.s_clean:g}")
        if not self.deltas:
            raise UsageError("no delta given: give one or more half-widths > 0")
        if self.n_clean < self.k:
            raise UsageError(f"n_clean {self.n_clean} must be >= k = {self.k}")
        if self.estimator not in ("dmm", "mle"):
            raise UsageError(f"the exchange rate is simulated for dmm or mle, not {self.estimator!r}")

    @property
    def noisy(self) -> int:
        """n_noisy, resolved."""
        return self.n_noisy or round(2 * self.n_clean * (self.s_noisy / self.s_clean) ** (4 * self.k - 2))

    def reference_sizes(self) -> list[int]:
        """Clean sample sizes of the reference curve: n_clean to n_clean + n_noisy, about four a decade."""
        points = max(5, math.ceil(4 * math.log10(1 + self.noisy / self.n_clean)) + 1)
        return [round(x) for x in np.geomspace(self.n_clean, self.n_clean + self.noisy, points)]


def plan_exchange(config: ExchangeConfig) -> list[SimulationCell]:
    """For each delta, the reference cells (clean only) and the mixture's cell."""
    cells = []
    for delta in config.deltas:
        half = delta * config.s_clean
        laws = tuple(atoms_of(scaled(p, half)) for p in hard_pair(config.k))
        mixes = [("clean", n, 0) for n in config.reference_sizes()] + [("mixed", config.n_clean, config.noisy)]
        for mix, clean, noisy in mixes:
            cells.append(
                SimulationCell(
                    name=f"iso-k{config.k}-delta{delta:g}-{mix}-n{clean + noisy}",
                    family="iso",
                    k=config.k,
                    d=1,
                    mix=mix,
                    n=clean + noisy,
                    n_clean=clean,
                    n_noisy=noisy,
                    levels=(config.s_clean,) + (config.s_noisy,) * (noisy > 0),
                    counts=(clean,) + (noisy,) * (noisy > 0),
                    radius=max(2 * config.s_clean, 1.25 * half),
                    reps=config.reps,
                    seed=config.seed,
                    engine="binned",
                    bins=_enough_bins(config, half),
                    delta=half,
                    laws=laws,
                    estimators=((config.estimator, config.weights if config.estimator == "dmm" else "-"),),
                )
            )
    return cells


def _enough_bins(config: ExchangeConfig, half: float) -> int:
    return max(config.bins, math.ceil(8 * (max(2 * config.s_clean, 1.25 * half) + 8 * config.s_clean) / config.s_clean))


@dataclass(frozen=True)
class Exchange:
    """One row of the table. c, low, high: simulated, with 95 % interval (None where refused: see `note`).

    weights: law -> s^-2m.
    """

    k: int
    delta: float
    s: float
    n_clean: int
    n_noisy: int
    estimator: str
    c: float | None
    low: float | None
    high: float | None
    fisher: float
    marginal: float
    weights: dict[str, float]
    note: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def exchange_table(config: ExchangeConfig, rows: Sequence[Row], draws: int = 2000) -> list[Exchange]:
    """c at every delta from the rows of `plan_exchange`'s cells."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([config.seed, 0x150])))
    ratio = config.s_noisy / config.s_clean
    out = []
    for delta in config.deltas:
        here = [r for r in rows if r["delta"] == delta * config.s_clean]
        reference = sorted((r for r in here if r["mix"] == "clean"), key=lambda r: r["n"])
        (mixed,) = [r for r in here if r["mix"] == "mixed"]
        c, low, high, note = equal_error_rate(reference, mixed, rng, draws)
        pair = [scaled(p, delta) for p in hard_pair(config.k)]
        out.append(
            Exchange(
                config.k,
                delta * config.s_clean,
                config.s_noisy,
                config.n_clean,
                config.noisy,
                config.estimator,
                c,
                low,
                high,
                float(np.mean([efficient_exchange_rate(law, ratio, config.n_clean, config.noisy) for law in pair])),
                float(np.mean([marginal_worth(law, ratio) for law in pair])),
                {law.name: ratio ** (-2 * law.m) for law in laws_for_atoms(config.k)},
                note,
            )
        )
    return out


def equal_error_rate(
    reference: Sequence[Row], mixed: Row, rng: np.random.Generator, draws: int = 2000
) -> tuple[float | None, float | None, float | None, str]:
    """(c, low, high, note). reference: clean rows, sorted by n; both sides are redrawn from N(mean, se^2).

    Refused (None) where n_noisy c < n_clean / 2, or where the mixture's error leaves the reference curve.
    """
    log_n = np.log([r["n"] for r in reference])
    n_clean, n_noisy = mixed["n_clean"], mixed["n_noisy"]

    def rate(curve: Floats, error: float) -> float:
        falling = np.minimum.accumulate(curve)  # noise must not make the curve turn
        log_error = math.log(max(error, 1e-300))
        if log_error > falling[0]:
            return 0.0
        if log_error < falling[-1]:
            return math.nan
        return (math.exp(float(np.interp(-log_error, -falling, log_n))) - n_clean) / n_noisy

    means, ses = np.array([r["w1_mean"] for r in reference]), np.array([r["w1_se"] for r in reference])
    c = rate(np.log(means), mixed["w1_mean"])
    noisy_means = np.maximum(means + ses * rng.standard_normal((draws, len(means))), means * 1e-3)
    noisy_errors = mixed["w1_mean"] + mixed["w1_se"] * rng.standard_normal(draws)
    boot = np.array([rate(np.log(m), e) for m, e in zip(noisy_means, noisy_errors, strict=True)])
    if math.isnan(c):
        return None, None, None, "the mixture beats all clean samples of the same number: c >= 1 within noise"
    if n_noisy * c < 0.5 * n_clean:
        return None, None, None, "unresolvable: the noisy samples together are worth less than half the clean ones"
    low, high = np.quantile(np.where(np.isnan(boot), 1.0, boot), [0.025, 0.975])
    return c, float(low), float(high), ""
