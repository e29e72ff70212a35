"""The 1-Wasserstein distance between atomic laws: exact on the line, a small transport problem in R^d."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.laws import AtomicLaw

Floats = NDArray[np.float64]


def w1_line(atoms: Floats, weights: Floats, other_atoms: Floats, other_weights: Floats) -> Floats:
    """`W1 = int |F - G|` between atomic laws on the line, vectorised over leading axes.

    atoms, weights: (..., k); other_atoms, other_weights: (..., m), broadcast against them. Returns (...).
    """
    lead = np.broadcast_shapes(atoms.shape[:-1], other_atoms.shape[:-1])
    x = np.concatenate(
        [
            np.broadcast_to(atoms, lead + atoms.shape[-1:]),
            np.broadcast_to(other_atoms, lead + other_atoms.shape[-1:]),
        ],
        axis=-1,
    )
    signed = np.concatenate(
        [
            np.broadcast_to(weights, lead + weights.shape[-1:]),
            -np.broadcast_to(other_weights, lead + other_weights.shape[-1:]),
        ],
        axis=-1,
    )
    order = np.argsort(x, axis=-1)
    x = np.take_along_axis(x, order, axis=-1)
    gap = np.cumsum(np.take_along_axis(signed, order, axis=-1), axis=-1)[..., :-1]
    return np.sum(np.abs(gap) * np.diff(x, axis=-1), axis=-1)


def w1_space(atoms: Floats, weights: Floats, other_atoms: Floats, other_weights: Floats) -> float:
    """W1 between laws with k and m atoms in R^d: `min sum_ij T_ij |a_i - b_j|`, T >= 0 with the two marginals.

    atoms: (k, d), other_atoms: (m, d). Solved as a linear programme of k m variables (HiGHS).
    """
    from scipy.optimize import linprog

    k, m = len(atoms), len(other_atoms)
    cost = np.linalg.norm(atoms[:, None, :] - other_atoms[None, :, :], axis=-1)
    if k == 1 or m == 1:
        return float(np.sum(cost * np.outer(weights, other_weights)))
    if k == 2 and m == 2:  # one free entry, cost linear in it: the optimum is at an end
        least = max(0.0, weights[0] - other_weights[1])
        most = min(weights[0], other_weights[0])
        ends = [
            np.array([[t, weights[0] - t], [other_weights[0] - t, weights[1] - other_weights[0] + t]])
            for t in (least, most)
        ]
        return float(min(np.sum(cost * plan) for plan in ends))
    rows = np.kron(np.eye(k), np.ones(m))
    columns = np.kron(np.ones(k), np.eye(m))
    marginals = np.concatenate([weights / weights.sum(), (other_weights / other_weights.sum())[:-1]])
    solution = linprog(cost.ravel(), A_eq=np.vstack([rows, columns[:-1]]), b_eq=marginals, bounds=(0, None))
    if not solution.success:
        raise RuntimeError(f"transport problem not solved: {solution.message}")
    return float(solution.fun)


def w1(first: AtomicLaw, second: AtomicLaw) -> float:
    """W1 between two laws of the same dimension, in the units of the atoms."""
    if first.d == 1 and second.d == 1:
        return float(w1_line(first.line(), first.weights, second.line(), second.weights))
    return w1_space(first.atoms, first.weights, second.atoms, second.weights)
