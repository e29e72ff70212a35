"""What a sweep may ask of the theory: which cell to train next, and what the records say so far.

The trainer knows cells and records, the theory knows laws and intervals. `cli` hands an `Adviser` to the commands that
need both; everything that passes between them is plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ambient_theory.shared.records import Record


@dataclass(frozen=True)
class Mixture:
    """What one model is trained on. sigma_n: noise of the noisy images, None where none is noisy."""

    n_clean: int
    n_noisy: int = 0
    sigma_n: float | None = None

    @property
    def name(self) -> str:
        """`100c`, or `100c+800n-0.2`: unique, and fit for the name of a cell."""
        return f"{self.n_clean}c" + (f"+{self.n_noisy}n-{self.sigma_n:g}" if self.n_noisy else "")


@dataclass(frozen=True)
class Step:
    """One training that is advised: a mixture, once more. factor: the ratio of the ends of the interval of the price
    that is predicted after it, None where nothing can be predicted. why: in a few words."""

    mixture: Mixture
    cost: float
    factor: float | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        m = self.mixture
        where = {"n_clean": m.n_clean, "n_noisy": m.n_noisy, "sigma": m.sigma_n}
        return {**where, "cost": self.cost, "predicted_factor": self.factor, "why": self.why}


@dataclass(frozen=True)
class Advice:
    """Trainings in order. factor: ratio of the ends now, as the same prediction has it. sentence: what is known."""

    steps: tuple[Step, ...]
    factor: float | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "known": self.sentence,
            "factor_now": self.factor,
            "steps": [step.to_dict() for step in self.steps],
            "cost": sum(step.cost for step in self.steps),
        }


@dataclass(frozen=True)
class Worth:
    """A noisy image's worth at one noise level under one checkpoint rule. Each worth is (value, low, high) in clean
    images, an end None where there is no interval, infinite where it has no end; None where no level lies there.

    sentence: price, interval, law. rows under `columns`: by level.
    """

    sigma_n: float
    rule: str
    above: tuple[float, float | None, float | None] | None
    below: tuple[float, float | None, float | None] | None
    sentence: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    details: dict[str, Any]


@dataclass(frozen=True)
class Purchase:
    """What to buy at one noise level. sentence: the mix with its intervals, or why it is not determined."""

    sentence: str
    details: dict[str, Any]


class Adviser(Protocol):
    """The theory as a sweep sees it."""

    def advise(
        self,
        records: Iterable[Record],
        sigma_n: float,
        candidates: Sequence[Mixture],
        *,
        cost: Callable[[Mixture], float],
        cells: int | None = None,
        budget: float | None = None,
        pending: Sequence[Mixture] = (),
        duration_nimg: int | None = None,
    ) -> Advice:
        """Which trainings shrink the interval of the price at `sigma_n` most per cost; at most `cells`, or `budget`.

        pending: trainings that are under way. duration_nimg: that of the trainings, where the records hold several.
        """
        ...

    def rough(self, records: Iterable[Record], sigma_n: float, duration_nimg: int | None = None) -> str:
        """The price so far in a few words, fast."""
        ...

    def worths(self, records: Iterable[Record], sigma_n: float) -> list[Worth]:
        """The worth under every checkpoint rule; raises DataError where nothing is priced."""
        ...

    def page(self, records: Iterable[Record], outdir: Path) -> Path:
        """Write the page of the records and return its path."""
        ...

    def purchase(
        self,
        records: Iterable[Record],
        sigma_n: float,
        price_clean: float,
        price_noisy: float,
        budget: float | None = None,
        where: str = "",
    ) -> Purchase:
        """The mix of least predicted denoising error for `budget`; None: for what the largest measured mixture costs.

        where: what the sentence calls the noise level. Raises DataError where the records price nothing.
        """
        ...

    def guess(self, sigma_n: float) -> str:
        """What results of other images say at this noise level, marked as a guess: for data without a measurement."""
        ...
