"""Does a model copy its training images? Nearest neighbours of generated images against those of held-out images.

For every generated image: d1 = distance to the nearest training image, and r = d1 / d2 with the second nearest. The
same two numbers of held-out images, which were never seen, are the yardstick. Let t be the k-th smallest of the m
held-out values, k = floor(share m). If generated and held-out images came from one distribution, the number of the n
generated ones below t would follow the beta-binomial law

    K ~ BetaBinomial(n; k, m - k + 1),    E K / n = k / (m + 1)

whatever that distribution is: the p-value P(K >= observed) is exact and counts the held-out sample's own uncertainty.

The two statistics fail in different ways. d1 is small also for images that are merely plain or blurred, as those of
undertrained models are. r is not: it is small only if one training image is far closer than any other; but it cannot
see a copy of an image that the training set holds twice. A copying verdict asks for both. Distances are Euclidean in
the features of an extractor (`pixels` by default).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.features import Extractor, get_extractor

SCHEMA = "ambient.memorisation/1"
ALPHA = 1e-3
SHARE = 0.05
_ROWS = 1000
_COLUMNS = 8000


@dataclass(frozen=True, kw_only=True)
class ShareBelow:
    """Share of generated images below a low quantile of the held-out ones.

    share: observed. interval: 95 % Clopper-Pearson interval of it (generated images only). expected: k / (m + 1), the
    share of images like the held-out ones. threshold: the held-out quantile. p_value: chance of at least this share
    if generated images were like held-out ones.
    """

    share: float
    interval: tuple[float, float]
    expected: float
    threshold: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """distance, ratio: the two statistics of the module's docstring. closest: (generated, training, distance) of the
    nearest pairs, indices into the arrays given. copies: whether both p-values are below .001."""

    extractor: str
    n: int
    n_train: int
    n_heldout: int
    distance: ShareBelow
    ratio: ShareBelow
    median_distance: float
    median_distance_heldout: float
    closest: tuple[tuple[int, int, float], ...]
    schema: str = SCHEMA

    @property
    def copies(self) -> bool:
        return self.distance.p_value < ALPHA and self.ratio.p_value < ALPHA

    def sentence(self) -> str:
        """What was found, in words."""
        seen = "it copies" if self.copies else "no sign of copying"
        return (
            f"memorisation: {seen}. Of {self.n:,} generated images {self.distance.share:.1%} lie nearer to a clean "
            f"training image than {1 - self.distance.expected:.0%} of the held-out images do "
            f"({self.distance.expected:.1%} expected), {self.ratio.share:.1%} nearer to one than to any other "
            f"({self.extractor})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first."""
        d = asdict(self)
        return {"schema": d.pop("schema"), **d, "copies": self.copies}


def memorisation_check(
    generated: npt.NDArray[np.uint8],
    train: npt.NDArray[np.uint8],
    heldout: npt.NDArray[np.uint8],
    extractor: Extractor | None = None,
    *,
    share: float = SHARE,
    show: int = 16,
) -> Memorisation:
    """Compare generated images' nearest training images with those of held-out images (uint8 [N, C, H, W] each).

    share: quantile of the held-out values, in (0, 1). show: number of closest pairs to keep. Give the images that the
    model could copy as `train`: those it saw clean. Raises UsageError for a share that is not in (0, 1), DataError if
    there are too few images or the held-out ones are copies of training images themselves.
    """
    if not 0 < share < 1:
        raise UsageError(f"share must lie between 0 and 1, not {share}")
    if len(train) < 2 or len(generated) < 1:
        raise DataError(f"{len(train)} training and {len(generated)} generated images: at least 2 and 1 are needed")
    k = rank_of(share, len(heldout))
    chosen = extractor or get_extractor("pixels")
    rows = chosen(train)
    ours, nearest = nearest_two(chosen(generated), rows)
    theirs, _ = nearest_two(chosen(heldout), rows)
    if (zeros := int((theirs[:, 0] == 0).sum())) >= k:
        raise DataError(
            f"{zeros} of {len(heldout)} held-out images are exact copies of training images: they are no yardstick"
        )
    order = np.argsort(ours[:, 0], kind="stable")[:show]
    return Memorisation(
        extractor=chosen.label,
        n=len(generated),
        n_train=len(train),
        n_heldout=len(heldout),
        distance=share_below(ours[:, 0], theirs[:, 0], k),
        ratio=share_below(_ratio(ours), _ratio(theirs), k),
        median_distance=float(np.median(ours[:, 0])),
        median_distance_heldout=float(np.median(theirs[:, 0])),
        closest=tuple((int(i), int(nearest[i]), float(ours[i, 0])) for i in order),
    )


def rank_of(share: float, n_heldout: int) -> int:
    """k of the module's docstring. Raises DataError where there are too few held-out images for one."""
    if (k := int(share * n_heldout)) < 1:
        raise DataError(f"{n_heldout} held-out images are too few for a share of {share:g}: give {1 / share:.0f}")
    return k


def share_below(values: npt.ArrayLike, yardstick: npt.ArrayLike, k: int) -> ShareBelow:
    """Share of `values` [n] strictly below the k-th smallest of `yardstick` [m], with its exact p-value.

    Ties count as not below, which makes the test conservative.
    """
    x, reference = np.asarray(values, np.float64), np.sort(np.asarray(yardstick, np.float64))
    n, m = len(x), len(reference)
    threshold = float(reference[k - 1])
    below = int((x < threshold).sum())
    low = float(stats.beta.ppf(0.025, below, n - below + 1)) if below else 0.0
    high = float(stats.beta.ppf(0.975, below + 1, n - below)) if below < n else 1.0
    return ShareBelow(
        share=below / n,
        interval=(low, high),
        expected=k / (m + 1),
        threshold=threshold,
        p_value=float(stats.betabinom.sf(below - 1, n, k, m - k + 1)),
    )


def nearest_two(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Distances [n, 2] of each row of x [n, d] to its nearest and second nearest row of y [m, d], and the index [n].

    Blocks of |x|^2 + |y|^2 - 2 x.y choose the three nearest candidates; their distances are then computed from the
    differences, so a copy has distance exactly 0.
    """
    a, b = np.asarray(x, np.float32), np.asarray(y, np.float32)
    if len(b) < 2:
        raise DataError(f"{len(b)} training image(s) have no second nearest: at least 2 are needed")
    distances = np.empty((len(a), 2))
    index = np.empty(len(a), np.int64)
    keep = min(3, len(b))
    squares = (b * b).sum(axis=1)
    for start, part in _rows(a):
        values = np.full((len(part), keep), np.inf, np.float32)
        where = np.zeros((len(part), keep), np.int64)
        for left in range(0, len(b), _COLUMNS):
            block = part @ (-2 * b[left : left + _COLUMNS].T)
            block += squares[left : left + _COLUMNS]
            for _ in range(min(keep, block.shape[1])):  # repeated argmin is far faster than a partition
                local = block.argmin(axis=1)[:, None]
                values = np.concatenate([values, np.take_along_axis(block, local, 1)], axis=1)
                where = np.concatenate([where, local + left], axis=1)
                np.put_along_axis(block, local, np.inf, axis=1)
            best = np.argsort(values, axis=1, kind="stable")[:, :keep]
            values, where = np.take_along_axis(values, best, 1), np.take_along_axis(where, best, 1)
        exact = np.sqrt(((part[:, None].astype(np.float64) - b[where]) ** 2).sum(axis=2))
        order = np.argsort(exact, axis=1, kind="stable")
        distances[start : start + len(part)] = np.take_along_axis(exact, order, 1)[:, :2]
        index[start : start + len(part)] = np.take_along_axis(where, order, 1)[:, 0]
    return distances, index


def _ratio(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """d1 / d2; 1 where both are 0 (a training image that is there twice)."""
    return np.divide(distances[:, 0], distances[:, 1], out=np.ones(len(distances)), where=distances[:, 1] > 0)


def _rows(a: npt.NDArray[np.float32]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    for start in range(0, len(a), _ROWS):
        yield start, a[start : start + _ROWS]
