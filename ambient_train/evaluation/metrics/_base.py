"""A score with its uncertainty, and what a metric is.

A metric sees the features of the generated images batch by batch and keeps what it needs of them, in memory that does
not grow with their number, then gives a score against each reference. Errors are those of the generated images for a
fixed model and a fixed reference; the spread over training seeds is for the caller to add. No bootstrap: resampling
images with replacement biases a Frechet distance upward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import stats

from ambient_theory.shared.errors import UsageError

if TYPE_CHECKING:
    from ambient_train.evaluation.features import Extractor, Features
    from ambient_train.evaluation.references import Reference

SCHEMA = "ambient.score/1"


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number with its uncertainty.

    metric: `fd`, `fid` (Inception only), `kid`, `is`. extractor: `name:hash8`. reference: name of what the images
    were compared with. stderr: standard error from the generated images. n: generated images; n_reference: images
    behind the reference, None if unknown. method: how the standard error came about. df: its degrees of freedom.
    bias: jackknife estimate of the finite-n bias contained in `value` (not subtracted), None where the estimator is
    unbiased or unknown. values: the scores of several generation seeds, where `value` is their mean. dim: number of
    features, None if it does not matter to the metric. drawn: for a floor, how its real images were drawn (`with
    replacement` | `without replacement`); empty for generated images.
    """

    metric: str
    extractor: str
    reference: str
    value: float
    stderr: float
    n: int
    n_reference: int | None
    method: str
    df: int
    bias: float | None = None
    values: tuple[float, ...] = ()
    dim: int | None = None
    drawn: str = ""
    schema: str = SCHEMA

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval `value -+ t stderr` with Student's t of `df` degrees of freedom."""
        if not 0 < confidence < 1:
            raise UsageError(f"confidence must lie between 0 and 1, not {confidence}")
        half = float(stats.t.ppf((1 + confidence) / 2, self.df)) * self.stderr
        return self.value - half, self.value + half

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary, `schema` first, with the 95 % interval; with several seeds also their spread."""
        d = asdict(self)
        values = list(d.pop("values"))
        seeds = {"values": values, "spread": self.spread, "min": min(values)} if values else {}
        return {"schema": d.pop("schema"), **d, "interval95": list(self.interval()), **seeds}

    @property
    def spread(self) -> float | None:
        """Standard deviation over generation seeds, None for one seed. Published tables often give this, not stderr."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


class Collector(Protocol):
    """What a metric keeps of the generated images in the features of one extractor."""

    def update(self, features: Features, probabilities: npt.NDArray[np.float64] | None) -> None:
        """Add the features [m, d] of a batch, and its class probabilities [m, classes] for a metric that needs them."""
        ...

    def score(self, reference: Reference | None) -> Score | None:
        """The score against a reference (None for a metric that needs none); None where the reference cannot serve.

        Raises DataError if there are too few images.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A member of the table."""

    collect: Callable[[Extractor], Collector]
    """A new collector for the features of an extractor."""
    record_names: tuple[str, ...]
    """What its scores are called in records, by which it can also be asked for."""
    lower_is_better: bool = True
    """False where a larger score is a better one."""
    needs_reference: bool = True
    """False for a metric of the generated images alone; the `reference` of its scores is `none`."""
    needs_probabilities: bool = False
    """Whether it is a function of class probabilities; it is left out for extractors without a classifier."""
    default: bool = False
    """Whether it is computed where no metric is named."""
