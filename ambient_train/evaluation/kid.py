"""Kernel distance (KID): the unbiased squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Gretton et al. 2012; Binkowski et al. 2018). Its expectation is 0 for equal distributions at every n, so it can be
negative: unlike the Frechet distance it has no finite-sample floor. The generated images are cut into disjoint
blocks, each compared with a block of the reference; the value is the mean over blocks, the standard error that of this
mean. Blocks of the reference are reused in turn if the generated images outnumber them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ambient_theory.errors import DataError

BLOCK = 1000
MIN_BLOCKS = 10


@dataclass(frozen=True)
class KernelDistance:
    """value: MMD^2. stderr: standard error over blocks. blocks: their number. n: generated images used."""

    value: float
    stderr: float
    blocks: int
    n: int


def cubic_kernel(x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """k(x_i, y_j) = (x_i . y_j / d + 1)^3 for rows [n, d] and [m, d] -> [n, m], float64."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    base = a @ b.T / a.shape[1] + 1
    return base * base * base


def mmd_squared(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Unbiased estimate of MMD^2 between rows [n, d] and [m, d], n, m >= 2. It may be negative."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features of shapes {a.shape} and {b.shape} cannot be compared")
    if min(len(a), len(b)) < 2:
        raise DataError(f"a kernel distance needs at least 2 images on each side, not {len(a)} and {len(b)}")
    return _within(a) + _within(b) - 2 * float(cubic_kernel(a, b).mean())


def kernel_distance(generated: npt.ArrayLike, reference: npt.ArrayLike, *, block: int = BLOCK) -> KernelDistance:
    """MMD^2 over disjoint blocks of at most `block` generated images (at least 10 blocks, of 2 images or more).

    The rows of both sets are taken in the order given: shuffle them first if they are sorted. The reference is cut
    into blocks of the same size. Raises DataError if either side is too small or not finite.
    """
    x, y = np.asarray(generated), np.asarray(reference)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("features are not finite")
    count = max(math.ceil(len(x) / block), MIN_BLOCKS)
    if len(x) < 2 * count:
        raise DataError(
            f"{len(x)} images are too few for a kernel distance over {count} blocks: give {2 * count} or more"
        )
    size = math.ceil(len(x) / count)
    y_blocks = np.array_split(y, max(len(y) // size, 1))
    values = np.array(
        [mmd_squared(part, y_blocks[i % len(y_blocks)]) for i, part in enumerate(np.array_split(x, count))]
    )
    return KernelDistance(float(values.mean()), float(values.std(ddof=1) / math.sqrt(count)), count, len(x))


def _within(a: npt.NDArray[np.float64]) -> float:
    kernel = cubic_kernel(a, a)
    n = len(a)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
