"""Cells to begin with, where nothing is known: a clean-only curve over a factor of about eight, and one mixture on it.

The worth may be anything from nearly 0 to 1. A mixture of n clean and m noisy images then equals n to n + m clean ones:
it lies on the curve whatever its worth if clean-only sizes reach from n to n + m, and tells most where m is large.
Each cell comes twice, the second seeds after all first ones: without a second seed there is no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ambient_theory.shared.advice import Mixture

SIZES = 4
"""Clean-only sizes: three constants a level, and one to judge them by."""
SEEDS = 2


def spread(candidates: Sequence[Mixture], have: Mapping[Mixture, int]) -> list[tuple[Mixture, str]]:
    """Trainings in order, each a mixture and why it is there. have: seeds of what is trained, which is left out."""
    clean = sorted({m.n_clean for m in candidates if not m.n_noisy})
    mixed = [m for m in candidates if m.n_noisy and m.n_clean]
    inside = [m for m in mixed if clean[0] <= m.n_clean and m.n_clean + m.n_noisy <= clean[-1]] or mixed
    mixture = max(inside, key=lambda m: (m.n_noisy / m.n_clean, -m.n_clean))
    low = max((n for n in clean if n <= mixture.n_clean), default=clean[0])
    high = min((n for n in clean if n >= mixture.n_clean + mixture.n_noisy), default=clean[-1])
    chosen = [(Mixture(n), "clean-only curve") for n in _between(clean, low, high)]
    chosen.append((mixture, "one mixture on it"))
    return [(m, why) for seed in range(SEEDS) for m, why in chosen if have.get(m, 0) <= seed]


def _between(sizes: Sequence[int], low: int, high: int) -> list[int]:
    """`SIZES` of the sizes from low to high, at about even ratios."""
    inside = [n for n in sizes if low <= n <= high]
    if len(inside) <= SIZES:
        return inside
    wanted = np.geomspace(low, high, SIZES)
    return sorted({min(inside, key=lambda n: abs(np.log(n / w))) for w in wanted})
