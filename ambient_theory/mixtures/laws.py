"""k-atomic laws, their Gaussian mixtures with known noise, and the instance families of the simulator.

A law is `D = sum_j w_j delta(a_j)` on the ball of radius R; data are `X_i = Y_i + s_i Z_i`, `Y_i ~ D`. Families:

* `hard`: two laws of k atoms that share 2k-2 moments, scaled to the noise so that they can barely be told apart.
* `envelope`: the same pair on a fixed grid of scales; the worst scale is looked for afterwards.
* `separated`: atoms 4 clean noise units apart, uneven weights.
* `pca-hard`, `pca-strong`: `Y = +-rho u` in d dimensions, rho tied to n_d, or 3 clean noise units.
* `pca-envelope`: the same on a fixed grid of rho; the worst rho is looked for afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from ambient_theory.bounds.sizes import check_k, check_levels
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AtomicLaw:
    """`sum_j weights_j delta(atoms_j)`. atoms: (k, d), a 1-D sequence is read as (k, 1); weights: (k,), sum 1.

    Raises UsageError for non-finite atoms, negative weights, a sum other than 1 or lengths that differ.
    """

    atoms: Floats
    weights: Floats

    def __init__(self, atoms: ArrayLike, weights: ArrayLike | None = None):
        a = np.array(atoms, dtype=float)
        a = a.reshape(-1, 1) if a.ndim <= 1 else a
        w = np.full(len(a), 1.0 / max(len(a), 1)) if weights is None else np.array(weights, dtype=float).ravel()
        if a.ndim != 2 or len(a) == 0 or a.shape[1] == 0:
            raise UsageError(f"atoms must be a list of numbers or a (k, d) array, not shape {np.shape(atoms)}")
        if len(w) != len(a):
            raise UsageError(f"{len(a)} atom(s) but {len(w)} weight(s): give one weight for each atom")
        if not np.all(np.isfinite(a)):
            raise UsageError("every atom must be finite")
        if not (np.all(np.isfinite(w)) and np.all(w >= 0) and abs(w.sum() - 1) < 1e-9):
            raise UsageError(f"weights must be >= 0 and sum to 1, not {w.tolist()}")
        object.__setattr__(self, "atoms", a)
        object.__setattr__(self, "weights", w / w.sum())

    @property
    def k(self) -> int:
        return len(self.atoms)

    @property
    def d(self) -> int:
        return self.atoms.shape[1]

    @property
    def radius(self) -> float:
        """Largest Euclidean norm of an atom."""
        return float(np.linalg.norm(self.atoms, axis=1).max())

    def check_inside(self, radius: float) -> AtomicLaw:
        """Itself. Raises UsageError if an atom lies outside the ball of this radius."""
        if self.radius > radius * (1 + 1e-12):
            raise UsageError(f"an atom lies at distance {self.radius:.4g}, outside the ball of radius R = {radius:.4g}")
        return self

    def moments(self, order: int) -> Floats:
        """`E Y^j`, j = 0..order, of a law on the line. Shape (order + 1,)."""
        return self.weights @ self.line()[:, None] ** np.arange(order + 1)

    def line(self) -> Floats:
        """Atoms of a law on the line, (k,). Raises UsageError in more dimensions."""
        if self.d != 1:
            raise UsageError(f"this needs a law on the line, not one in {self.d} dimensions")
        return self.atoms[:, 0]

    def mean(self) -> Floats:
        """`E Y`, shape (d,)."""
        return self.weights @ self.atoms

    def sample(self, s: ArrayLike, rng: np.random.Generator) -> Floats:
        """One sample `X_i = Y_i + s_i Z_i` for each entry of s (n,). Shape (n, d)."""
        levels, _ = check_levels(s)
        labels = rng.choice(self.k, size=levels.size, p=self.weights)
        return self.atoms[labels] + levels[:, None] * rng.standard_normal((levels.size, self.d))

    def bin_probabilities(self, edges: Floats, s: float) -> Floats:
        """Probability of each bin under `D * N(0, s^2)` on the line; the outer bins take the tails.

        edges: (B + 1,) increasing. Returns (B,), sum 1. Differences are taken in the nearer tail, so that small
        probabilities keep their digits.
        """
        z = (edges[1:-1, None] - self.line()) / s
        upper = np.vstack([np.zeros(self.k), ndtr(z), np.ones(self.k)])
        lower = np.vstack([np.ones(self.k), ndtr(-z), np.zeros(self.k)])
        left = np.diff(upper, axis=0)
        right = -np.diff(lower, axis=0)
        p = np.where(upper[:-1] < 0.5, left, right) @ self.weights
        return p / p.sum()

    def to_dict(self) -> dict[str, Any]:
        return {"atoms": self.atoms.tolist(), "weights": self.weights.tolist()}


# ------------------------------------------------------------------------------------------------- the hard pair


def hard_pair(k: int) -> tuple[AtomicLaw, AtomicLaw]:
    """Two k-atomic laws on [-1, 1] whose first 2k-2 moments agree (derived here).

    Nodes `t_j = cos(pi j / (2k-1))`, j = 0..2k-1, carry the signed weights `(-1)^j`, half at both ends: the divided
    difference of order 2k-1 at the extrema of the Chebyshev polynomial. Its positive and its negative part, both
    normalised, are nu and nu'. k = 2: nu = {-1/2: 2/3, 1: 1/3} and its mirror. Their (2k-1)-th moments differ by
    `moment_gap(k)`.
    """
    k = check_k(k)
    j = np.arange(2 * k)
    nodes = np.cos(np.pi * j / (2 * k - 1))
    signed = (-1.0) ** j
    signed[[0, -1]] /= 2
    plus, minus = signed > 0, signed < 0
    return (
        AtomicLaw(nodes[plus], signed[plus] / signed[plus].sum()),
        AtomicLaw(nodes[minus], -signed[minus] / -signed[minus].sum()),
    )


def moment_gap(k: int) -> float:
    """Difference of the (2k-1)-th moments of `hard_pair(k)`: 2, 1/2, 1/8 for k = 1, 2, 3."""
    nu, other = hard_pair(k)
    return float(abs(nu.moments(2 * k - 1)[-1] - other.moments(2 * k - 1)[-1]))


def hard_delta(k: int, n_l: float, snr: float = 2.0) -> float:
    """Half-width delta at which the hard pair is `snr` standard errors apart in its (2k-1)-th moment:

        delta = (snr sqrt((2k-1)! / n_l) / gap)^(1/(2k-1)),

    since the unbiased estimate of that moment has variance about `(2k-1)! / n_l`. n_l, not n: in raw n mixtures of
    noise levels would look wrong.
    """
    k = check_k(k)
    if not (math.isfinite(n_l) and n_l > 0 and snr > 0):
        raise UsageError(f"the hard pair needs an effective size n_l > 0 and snr > 0, not {n_l!r}, {snr!r}")
    return (snr * math.sqrt(math.factorial(2 * k - 1) / n_l) / moment_gap(k)) ** (1.0 / (2 * k - 1))


def scaled(law: AtomicLaw, delta: float) -> AtomicLaw:
    """The law of `delta Y`."""
    return AtomicLaw(law.atoms * delta, law.weights)


# ------------------------------------------------------------------------------------------------- other families


def separated_law(k: int, s_clean: float = 1.0, gap: float = 4.0) -> AtomicLaw:
    """k atoms `gap * s_clean` apart, centred on 0, with weights proportional to 1, 2, ..., k."""
    k = check_k(k)
    weights = np.arange(1.0, k + 1)
    return AtomicLaw(gap * s_clean * (np.arange(k) - (k - 1) / 2), weights / weights.sum())


def pca_hard_rho(d: int, n_d: float, factor: float = 1.2) -> float:
    """`rho = factor (d / n_d)^(1/4)`, at which the direction of `+-rho u` is barely found (derived here)."""
    if d < 1 or not n_d > 0:
        raise UsageError(f"the subspace instance needs d >= 1 and n_d > 0, not {d!r}, {n_d!r}")
    return factor * (d / n_d) ** 0.25


def pair_law(rho: float) -> AtomicLaw:
    """`Y = +-rho`, probabilities 1/2. In d dimensions on the first axis: noise is rotation invariant."""
    return AtomicLaw([-rho, rho])


def envelope_grid(radius: float, points: int = 12, least: float = 0.02) -> Floats:
    """The fixed grid of half-widths in [least, R], even in log delta, tied to nothing else."""
    if not radius > least:
        raise UsageError(f"the envelope's grid starts at delta = {least}: the radius R must exceed it, not {radius!r}")
    return np.geomspace(least, radius, points)


def embed(law: AtomicLaw, d: int) -> AtomicLaw:
    """A law on the line put on the first axis of R^d."""
    if law.d == d:
        return law
    atoms = np.zeros((law.k, d))
    atoms[:, 0] = law.line()
    return AtomicLaw(atoms, law.weights)


def quantise_levels(s: Floats, most: int = 64) -> tuple[Floats, NDArray[np.int64]]:
    """Noise levels for the *weights*: the distinct values if there are at most `most`, else bins even in log s.

    s: (n,) > 0. Returns levels (L,) and the level (n,) of each sample. A bin's level is the root mean square of its
    members. Moments always use each sample's own s.
    """
    distinct = np.unique(s[:4096])
    if len(distinct) <= most:
        index = np.minimum(np.searchsorted(distinct, s), len(distinct) - 1)
        if not np.array_equal(distinct[index], s):
            distinct = np.unique(s)
            index = np.searchsorted(distinct, s)
    else:
        distinct = np.unique(s)
        index = np.searchsorted(distinct, s)
    if len(distinct) <= most:
        return distinct, index
    logs = np.log(s)
    low, high = logs.min(), logs.max()
    index = np.minimum(((logs - low) / (high - low) * most).astype(np.int64), most - 1)
    used, index = np.unique(index, return_inverse=True)
    return np.sqrt(np.bincount(index, weights=s**2) / np.bincount(index)), index


def parse_atoms(text: str) -> AtomicLaw:
    """`"-0.6:0.4,0.5:0.6"` -> a law on the line (atom:weight, weights optional). Raises UsageError with the form."""
    atoms: list[float] = []
    weights: list[float] = []
    parts: Sequence[str] = [p for p in text.replace(";", ",").split(",") if p.strip()]
    try:
        for part in parts:
            atom, _, weight = part.partition(":")
            atoms.append(float(atom))
            weights.append(float(weight) if weight else 1.0 / len(parts))
    except ValueError:
        raise UsageError(f"atoms {text!r} are not of the form ATOM:WEIGHT,ATOM:WEIGHT,... (numbers)") from None
    if not atoms:
        raise UsageError("no atoms given: write them as ATOM:WEIGHT,ATOM:WEIGHT,...")
    return AtomicLaw(atoms, weights)
