"""The constants of the two-term bound, fitted: does one pair of them describe worst cases that were not fitted?

    W1 = C_d (d / n_d)^(1/4) + C_l n_l^(-1/(4k-2))        (the first term in d >= 2)

is fitted in log W1 to the worst cases of samples that are all clean, over fixed grids of scales of the hard pair
(`envelope`) and of `Y = +-rho u` (`pca-envelope`, in d >= 2); asked for one of these families, over its grid. Held out
are the mixtures with noisy samples, and the largest dimension (fitted without it, predicted with the others'
constants). The control counts samples, n for n_d and n_l: what it misses by says how much the effective sizes do.
Nothing is claimed beyond k, the family and the range of the cells: constants belong to an estimator and to laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.bounds.sizes import check_k, lowdim_exponent
from ambient_theory.shared.errors import UsageError
from ambient_theory.simulation.collapse import LEARNED_ON, Row
from ambient_theory.simulation.envelope import ENVELOPES
from ambient_theory.simulation.grid import GridPlan, SimulationConfig, plan
from ambient_theory.simulation.options import CALIBRATION_DIMS, GridOptions

Floats = NDArray[np.float64]
DRAWS, STEPS = 400, 60
GOOD = 0.1
"""A held-out |log ratio| below this is called a description."""
CLEAR = 2.0
"""The control must miss by this many times as much, for the effective sizes to be what does it."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """One grid a dimension. Raises UsageError for what cannot be simulated."""

    grid: SimulationConfig
    families: tuple[str, ...]
    dims: tuple[int, ...]

    @property
    def reps(self) -> int:
        return self.grid.reps

    @classmethod
    def of(cls, asked: GridOptions, families: tuple[str, ...], dims: tuple[int, ...] | None) -> CalibrationConfig:
        """From the options of a grid (k, mixes, sizes, levels, replicates), with families and dimensions."""
        if len(asked.k) != 1 or len(asked.weights) != 1:
            raise UsageError("--calibrate takes one --k and one --weights: constants belong to them")
        k = check_k(asked.k[0], least=2)
        if other := [f for f in families if f not in ENVELOPES]:
            raise UsageError(f"--calibrate is for worst cases over a grid, {' and '.join(ENVELOPES)}, not {other[0]}")
        if k > 2 and (dims not in (None, (1,)) or families == ("pca-envelope",)):
            raise UsageError(f"--calibrate in more dimensions is for k = 2: with k = {k} use --calibrate-dim 1")
        dims = (1,) if k > 2 else tuple(sorted(set(dims or CALIBRATION_DIMS)))
        if families == ("pca-envelope",):
            dims = tuple(d for d in dims if d > 1)
        mixes = tuple(dict.fromkeys((LEARNED_ON, *asked.mixes)))
        if not dims or mixes == (LEARNED_ON,):
            what = "--calibrate-dim 2 or more" if not dims else "--mix 10:90, or noisy"
            raise UsageError(f"--calibrate needs {what}: there is nothing to fit, or nothing to test on")
        settings = {**vars(asked), "k": (k,), "dim": 1, "engine": "auto", "mixes": mixes}
        grid = SimulationConfig(**{**settings, "families": ("envelope",), "estimators": ("dmm",), "atoms": None})
        return cls(grid=grid, families=families, dims=dims)

    def of_dimension(self, d: int) -> SimulationConfig:
        families = tuple(f for f in self.families if d > 1 or f != "pca-envelope")
        return replace(self.grid, dim=d, engine="auto", families=families)


def plan_calibration(config: CalibrationConfig) -> GridPlan:
    """The cells of every dimension."""
    plans = [plan(config.of_dimension(d)) for d in config.dims]
    return GridPlan(tuple(c for p in plans for c in p.cells), tuple(s for p in plans for s in p.skipped))


def worst_of_families(rows: Sequence[Row]) -> list[Row]:
    """Of rows that are each the worst of a family's grid, the worst for every (d, mix, n)."""
    worst: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = row["d"], row["mix"], row["n"]
        if key not in worst or row["w1_mean"] > worst[key]["w1_mean"]:
            worst[key] = row
    return list(worst.values())


@dataclass(frozen=True)
class Point:
    """A worst case and the family that it is of. predicted: by the constants; naive: by the same fit with n for n_d and
    n_l; fitted: whether it was among those that the constants come from."""

    family: str
    d: int
    mix: str
    n: int
    n_d: float
    n_l: float
    w1: float
    predicted: float
    naive: float
    fitted: bool


@dataclass(frozen=True)
class Calibration:
    """c_d: None on the line. Intervals of 95 % (cells redrawn, their noise too). spread: of the fitted cells; held_out:
    of the mixtures; naive: of the control on them; new_dimension: of the largest dimension, by constants of the others,
    None where there are not three. All median |log(predicted / measured)|."""

    k: int
    c_d: tuple[float, float, float] | None
    c_l: tuple[float, float, float]
    spread: float
    held_out: float
    naive: float
    new_dimension: tuple[int, float] | None
    points: tuple[Point, ...]
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def terms(rows: Sequence[Row], naive: bool = False) -> Floats:
    """(R, 2): `(d/n_d)^(1/4)` (0 on the line) and `n_l^(-1/(4k-2))` of each row; naive: n for both sizes."""
    return np.array(
        [
            (
                0.0 if r["d"] == 1 else (r["d"] / r["n" if naive else "n_d"]) ** 0.25,
                float(r["n" if naive else "n_l"]) ** -lowdim_exponent(r["k"]),
            )
            for r in rows
        ]
    )


def fitted_constants(x: Floats, w1: Floats) -> Floats:
    """(C_d, C_l) >= 0 of least squares in log W1, by Gauss-Newton in the logarithms of the constants. x: (R, 2).

    A constant that the cells do not need goes to 0; one whose term is 0 everywhere is 0.
    """
    used = x.any(axis=0)
    terms_used, target = x[:, used], np.log(w1)
    theta = np.full(int(used.sum()), float(np.mean(target - np.log(terms_used.sum(axis=1)))))
    for _ in range(STEPS):
        parts = terms_used * np.exp(theta)
        total = parts.sum(axis=1)
        step = np.linalg.lstsq(parts / total[:, None], target - np.log(total), rcond=1e-10)[0]
        theta = np.clip(theta + np.clip(step, -1, 1), -30, 30)
        if np.abs(step).max() < 1e-10:
            break
    constants = np.zeros(2)
    constants[used] = np.exp(theta)
    return constants


def calibrate(rows: Sequence[Row], seed: int = 0) -> Calibration:
    """The constants from the worst cases (one row each) of one k and any families.

    Raises UsageError for fewer than four clean ones, or for no mixture.
    """
    k = rows[0]["k"] if rows else 2
    rows = sorted(worst_of_families(rows), key=lambda r: (r["d"], r["mix"] != LEARNED_ON, r["mix"], r["n"]))
    clean = np.array([r["mix"] == LEARNED_ON for r in rows], dtype=bool)
    if clean.sum() < 4 or clean.all():
        raise UsageError(
            f"{int(clean.sum())} worst cases of clean samples and {int((~clean).sum())} of mixtures lie inside the "
            "grid of half-widths: more sizes --n are needed, or a larger --radius"
        )
    w1, error = np.array([r["w1_mean"] for r in rows]), np.array([r["w1_se"] for r in rows])
    x, by_n = terms(rows), terms(rows, naive=True)
    constants, control = fitted_constants(x[clean], w1[clean]), fitted_constants(by_n[clean], w1[clean])
    predicted, naive = x @ constants, by_n @ control
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0xCA1])))
    draws = []
    learned = np.flatnonzero(clean)
    for _ in range(DRAWS):
        chosen = rng.choice(learned, len(learned))
        noisy = np.maximum(w1[chosen] + error[chosen] * rng.standard_normal(len(chosen)), 1e-3 * w1[chosen])
        draws.append(fitted_constants(x[chosen], noisy))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    off = np.abs(np.log(predicted / w1))
    held_out, by_number = float(np.median(off[~clean])), float(np.median(np.abs(np.log(naive / w1))[~clean]))
    d = np.array([r["d"] for r in rows])
    new = None
    if len(set(d.tolist())) >= 3:
        largest = d == d.max()
        others = fitted_constants(x[clean & ~largest], w1[clean & ~largest])
        new = (int(d.max()), float(np.median(np.abs(np.log(x[largest] @ others / w1[largest])))))
    points = tuple(
        Point(r["family"], r["d"], r["mix"], r["n"], r["n_d"], r["n_l"], float(a), float(b), float(c), bool(f))
        for r, a, b, c, f in zip(rows, w1, predicted, naive, clean, strict=True)
    )
    interval = [(float(constants[i]), float(low[i]), float(high[i])) for i in range(2)]
    return Calibration(
        k,
        interval[0] if x[:, 0].any() else None,
        interval[1],
        float(np.median(off[clean])),
        held_out,
        by_number,
        new,
        points,
        _verdict(held_out, by_number),
    )


def _verdict(held_out: float, naive: float) -> str:
    told = f"mixtures that were not fitted are missed by {100 * held_out:.2g} % (median), counting samples misses them "
    told += f"by {100 * np.expm1(naive):.3g} %"
    if held_out >= GOOD:
        return f"the two terms do not describe these worst cases: {told}"
    if naive < CLEAR * held_out:
        return f"the effective sizes do no better than n here: {told}; mixtures of more noise would tell"
    return f"two constants and the effective sizes describe these worst cases: {told}"
