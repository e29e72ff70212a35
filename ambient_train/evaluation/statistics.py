"""Mean and covariance of features in one pass: mergeable float64 sums, in memory that does not grow with n.

For a set of n rows with mean m and scatter S = sum (x - m)(x - m)^T, two sets merge exactly (Chan, Golub and LeVeque
1979): with n = n_a + n_b and delta = m_b - m_a,

    m = m_a + (n_b / n) delta        S = S_a + S_b + (n_a n_b / n) delta delta^T

and the same identity solved for S_a takes a set out again, which is what a delete-a-group jackknife needs.
The covariance is S / (n - 1), as in the statistics files of EDM and of Heusel et al. (2017).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_bytes
from ambient_theory.shared.npy import load_npz

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureStatistics:
    """n: rows (None if a file does not say). mean [d], cov [d, d] (divided by n - 1). extractor: its label or None."""

    n: int | None
    mean: Array
    cov: Array
    extractor: str | None = None

    def __post_init__(self) -> None:
        d = self.mean.shape[0] if self.mean.ndim == 1 else -1
        if d < 1 or self.cov.shape != (d, d):
            raise DataError(f"mean {self.mean.shape} and covariance {self.cov.shape} do not fit: need [d] and [d, d]")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.cov).all()):
            raise DataError("feature statistics are not finite")
        if not np.allclose(self.cov, self.cov.T, rtol=1e-4, atol=1e-6 * float(np.abs(self.cov).max())):
            raise DataError("the covariance is not symmetric")
        if self.n is not None and self.n < 2:
            raise DataError(f"statistics of {self.n} image(s) have no covariance: at least 2 are needed")

    @property
    def dim(self) -> int:
        return self.mean.shape[0]

    @classmethod
    def from_features(cls, features: npt.ArrayLike, extractor: str | None = None) -> FeatureStatistics:
        """Statistics of features [n, d], n >= 2."""
        rows = np.asarray(features)
        if rows.ndim != 2:
            raise DataError(f"features must be [n, d], not of shape {rows.shape}")
        return RunningStatistics(rows.shape[1]).update(rows).finish(extractor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` that EDM reads (`mu`, `sigma`) with ours beside (`n`, `extractor` as UTF-8), atomically."""
        arrays: dict[str, npt.NDArray] = {"mu": self.mean, "sigma": self.cov}
        if self.n is not None:
            arrays["n"] = np.array([self.n], np.int64)
        if self.extractor is not None:
            arrays["extractor"] = np.frombuffer(self.extractor.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        atomic_write_bytes(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Read an `.npz` with `mu` [d] and `sigma` [d, d]; `n` and `extractor` are used where present.

        Nothing in the file is executed and no size in it is believed. Raises DataError naming the file.
        """
        path = Path(path)
        arrays = load_npz(path, only=("mu", "sigma", "n", "extractor"))
        if missing := [key for key in ("mu", "sigma") if key not in arrays]:
            raise DataError(f"{path}: no array {' and '.join(missing)}: not a file of reference statistics")
        n, label = arrays.get("n"), arrays.get("extractor")
        if n is not None and (n.size != 1 or n.dtype.kind not in "ui"):
            raise DataError(f"{path}: n must be one whole number")
        if label is not None and label.dtype != np.uint8:
            raise DataError(f"{path}: extractor must be a name in UTF-8 bytes")
        try:
            return cls(
                n=None if n is None else int(n.item()),
                mean=arrays["mu"].astype(np.float64),
                cov=arrays["sigma"].astype(np.float64),
                extractor=None if label is None else label.tobytes().decode(),
            )
        except (DataError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: {error}") from None


class RunningStatistics:
    """Mergeable sums of features: n, mean [d] and scatter [d, d], float64."""

    def __init__(self, dim: int):
        self.n = 0
        self.mean: Array = np.zeros(dim)
        self.scatter: Array = np.zeros((dim, dim))

    def update(self, features: npt.ArrayLike, chunk: int = 4096) -> RunningStatistics:
        """Add rows [m, d], `chunk` rows at a time. Raises DataError if they are not finite or of another width."""
        rows = np.asarray(features)
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise DataError(f"features must be [m, {len(self.mean)}], not of shape {rows.shape}")
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk].astype(np.float64)
            mean = part.mean(axis=0)
            if not np.isfinite(mean).all():
                raise DataError("features are not finite")
            part -= mean
            self._merge(len(part), mean, part.T @ part)
        return self

    def merge(self, other: RunningStatistics) -> RunningStatistics:
        """Add another set of rows, in place."""
        if other.n:
            self._merge(other.n, other.mean, other.scatter)
        return self

    def without(self, other: RunningStatistics) -> RunningStatistics:
        """A new object: this set without the rows of `other`, which must be a subset of it."""
        n = self.n - other.n
        if n < 0:
            raise UsageError(f"cannot take {other.n} rows out of {self.n}")
        rest = RunningStatistics(len(self.mean))
        if n:
            rest.n = n
            rest.mean = self.mean + (self.mean - other.mean) * (other.n / n)
            delta = other.mean - rest.mean
            rest.scatter = self.scatter - other.scatter
            rest.scatter -= np.outer(delta * (n * other.n / self.n), delta)
        return rest

    def finish(self, extractor: str | None = None) -> FeatureStatistics:
        """Mean and covariance. Raises DataError for fewer than 2 rows."""
        if self.n < 2:
            raise DataError(f"statistics of {self.n} image(s) have no covariance: at least 2 are needed")
        return FeatureStatistics(self.n, self.mean.copy(), self.scatter / (self.n - 1), extractor)

    def _merge(self, n: int, mean: Array, scatter: Array) -> None:
        total = self.n + n
        delta = mean - self.mean
        self.scatter += scatter
        if self.n:
            self.scatter += np.outer(delta * (self.n * n / total), delta)
        self.mean = self.mean + delta * (n / total)
        self.n = total


class GroupedStatistics:
    """Running statistics of g groups of nearly equal size (`deal_groups`), for a delete-a-group jackknife."""

    def __init__(self, dim: int, groups: int):
        if groups < 2:
            raise UsageError(f"a jackknife needs at least 2 groups, not {groups}")
        self.groups = [RunningStatistics(dim) for _ in range(groups)]
        self._position = 0

    def update(self, features: npt.ArrayLike) -> GroupedStatistics:
        """Add rows [m, d]."""
        rows = np.asarray(features)
        labels = deal_groups(self._position, len(rows), len(self.groups))
        for k, group in enumerate(self.groups):
            group.update(rows[labels == k])
        self._position += len(rows)
        return self

    @property
    def total(self) -> RunningStatistics:
        return merge_all(self.groups)


def deal_groups(position: int, count: int, groups: int) -> npt.NDArray[np.int64]:
    """Group 0..g-1 of each of the rows position..position+count-1.

    Rows are dealt out in blocks of g, each block in a random order of its own: the sizes differ by at most one, the
    group depends on a row's position only (never on how the rows were cut into batches), and no periodic order of
    the rows, such as labels 0-9 in turn, can line up with the groups. Standard errors on record were dealt by NumPy's
    generator keyed by the block, which is as stateless as `stateless` is, and so it stays.
    """
    first, last = position // groups, (position + count - 1) // groups
    blocks = [np.random.default_rng([0x67726F7570, block]).permutation(groups) for block in range(first, last + 1)]
    start = position - first * groups
    return np.concatenate(blocks)[start : start + count] if blocks else np.empty(0, np.int64)


def merge_all(parts: Iterable[RunningStatistics]) -> RunningStatistics:
    """One set from many. Raises UsageError if there is none."""
    parts = list(parts)
    if not parts:
        raise UsageError("no statistics to merge")
    whole = RunningStatistics(len(parts[0].mean))
    for part in parts:
        whole.merge(part)
    return whole
