"""Statistics over replicates: the mean of a cell over its training seeds, and how sure it is.

The seed of training is the unit of replication. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Replicates:
    """mean over n replicates; stderr of that mean, `sqrt(sum (x - mean)^2 / (n - 1) / n)`, None from a single one."""

    mean: float
    stderr: float | None
    n: int


def replicates(values: Iterable[float]) -> Replicates:
    """Mean and standard error of replicated values. Raises ValueError where there is none."""
    x = [float(value) for value in values]
    if not x:
        raise ValueError("a mean needs at least one value")
    mean = math.fsum(x) / len(x)
    if len(x) == 1:
        return Replicates(mean, None, 1)
    spread = math.fsum((value - mean) ** 2 for value in x)
    return Replicates(mean, math.sqrt(spread / (len(x) - 1) / len(x)), len(x))


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
