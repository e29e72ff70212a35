"""What is trained next, while the time lasts: first cells that spread, then those that narrow the price most.

A campaign keeps what was asked for in its folder, so that it can be killed at any moment: the same command runs what is
not done and goes on. It decides; `pricing.run` trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ambient_theory.shared.advice import Adviser, Mixture
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import read_sealed, write_sealed
from ambient_theory.shared.records import Record
from ambient_train.pricing.stages import CLEAN_SIZES, PAGE_S, Rates, Stage, first_cells, further_stage

SCHEMA = "ambient.worth-state/1"


@dataclass(frozen=True)
class Asked:
    """One training that was asked for. stage: its number."""

    stage: int
    mixture: Mixture
    seed: int

    def to_list(self) -> list[Any]:
        m = self.mixture
        return [self.stage, m.n_clean, m.n_noisy, m.sigma_n, self.seed]

    @classmethod
    def from_list(cls, row: Sequence[Any]) -> Asked:
        number, clean, noisy, sigma, seed = row
        return cls(number, Mixture(clean, noisy, sigma), seed)


@dataclass
class Campaign:
    """The state of one question.

    question: what must be the same for the campaign to go on. spent_s: by earlier commands; clock: seconds since this
    one began. asked: every training so far, in order; done: those finished, with their records and seconds.
    """

    folder: Path
    question: dict[str, Any]
    sigmas: tuple[float, ...]
    n_train: int
    denoise: int
    stages: tuple[Stage, ...]
    rates: Rates
    time_s: float
    workers: int
    clock: Callable[[], float]
    spent_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    done: dict[Asked, tuple[list[Record], float]] = field(default_factory=dict)
    failed: set[Asked] = field(default_factory=set)

    @property
    def file(self) -> Path:
        return self.folder / "worth.json"

    @property
    def left_s(self) -> float:
        """Time for further trainings."""
        return self.time_s - PAGE_S - self.spent_s - self.clock()

    def save(self) -> None:
        write_sealed(
            self.file,
            {
                "schema": SCHEMA,
                "question": self.question,
                "stages": [s.to_dict() for s in self.stages],
                "denoise": self.denoise,
                "rates": vars(self.rates),
                "spent_s": round(self.spent_s + self.clock(), 1),
                "asked": [a.to_list() for a in self.asked],
            },
        )

    def take_up(self, stored: dict[str, Any]) -> None:
        """Go on from what is stored. Raises UsageError where that is another question."""
        if stored["question"] != self.question:
            before, now = stored["question"], self.question
            keys = [k for k in {**now, **before} if before.get(k) != now.get(k)]
            raise UsageError(
                f"{self.folder} holds the answer to another question (other {', '.join(keys)}): choose another --outdir"
            )
        self.spent_s = float(stored["spent_s"])
        self.asked = [Asked.from_list(row) for row in stored["asked"]]

    def lengthen(self) -> Stage | None:
        """Add a longer stage, and return it, where the last one has its first cells and time was added that is enough
        for one."""
        if sum(a.stage == len(self.stages) - 1 for a in self.asked) < first_cells(len(self.sigmas)):
            return None
        further = further_stage(
            self.stages[-1],
            self.left_s,
            self.rates,
            workers=self.workers,
            sigmas=len(self.sigmas),
            n_train=self.n_train,
            denoise=self.denoise,
        )
        self.stages += () if further is None else (further,)
        return further

    def records(self, number: int) -> list[Record]:
        """Of the finished trainings of one stage."""
        every = (rows for a, (rows, _) in self.done.items() if a.stage == number)
        points = set(self.stages[number].score_at)
        return [r for rows in every for r in rows if r.duration_nimg in points]

    def finish(self, asked: Asked, records: Sequence[Record] | None, wall_s: float) -> None:
        """Note an outcome; records None: it failed."""
        if records is None:
            self.failed.add(asked)
        else:
            self.done[asked] = (list(records), wall_s)
        self.save()

    @property
    def stage(self) -> int:
        """The stage that is on: the first whose first cells were not all asked for, the last one without end."""
        for number in range(len(self.stages) - 1):
            if sum(a.stage == number for a in self.asked) < first_cells(len(self.sigmas)):
                return number
        return len(self.stages) - 1

    @property
    def answered(self) -> int | None:
        """The last stage whose first cells are all done; None before the first answer."""
        return self._last_with(first_cells(len(self.sigmas)))

    @property
    def best(self) -> int | None:
        """The stage to answer from when the time is up: `answered`, else one whose cells are all done once."""
        found = self.answered
        return self._last_with(CLEAN_SIZES + len(self.sigmas)) if found is None else found

    def _last_with(self, count: int) -> int | None:
        enough = [k for k in range(len(self.stages)) if sum(a.stage == k for a in self.done) >= count]
        return max(enough, default=None)

    def cell_s(self, number: int) -> float:
        """Seconds of one training of a stage: as predicted, and as seen once some are done."""
        seen = [seconds for a, (_, seconds) in self.done.items() if a.stage == number and seconds > 1]
        if seen:
            return sum(seen) / len(seen)
        return self.stages[number].cell_s(self.rates, self.denoise)

    def waiting(self) -> list[Asked]:
        """Asked for and neither done nor failed."""
        return [a for a in self.asked if a not in self.done and a not in self.failed]

    def next(self, adviser: Adviser) -> Asked | None:
        """The next training, noted as asked for; None where the time is up or nothing helps."""
        number = self.stage
        first = sum(a.stage == number for a in self.asked) < first_cells(len(self.sigmas))
        # without its first cells a stage says nothing: they may take the time that was kept for the end
        if (0 if first else self.cell_s(number)) > self.left_s + (PAGE_S if first else 0):
            return None
        mixture = self._choose(adviser, number)
        if mixture is None:
            return None
        seeds = Counter(a.mixture for a in self.asked if a.stage == number)
        asked = Asked(number, mixture, seeds[mixture])
        self.asked.append(asked)
        self.save()
        return asked

    def _choose(self, adviser: Adviser, number: int) -> Mixture | None:
        """For the noise level whose price is known worst, the cell that narrows it most."""
        best: tuple[float, Mixture] | None = None
        records = self.records(number)
        pending = [a.mixture for a in self.waiting() if a.stage == number]
        lost = [a.mixture for a in self.failed if a.stage == number]
        for sigma_n in self.sigmas:
            candidates = [m for m in self.stages[number].candidates(sigma_n, self.n_train) if m not in lost]
            advice = adviser.advise(
                records,
                sigma_n,
                candidates,
                cost=lambda mixture: 1.0,
                cells=1,
                pending=pending,
                duration_nimg=self.stages[number].duration_nimg,
            )
            width = float("inf") if advice.factor is None else advice.factor
            if advice.steps and (best is None or width > best[0]):
                best = (width, advice.steps[0].mixture)
        return None if best is None else best[1]


def stored_state(folder: Path) -> dict[str, Any] | None:
    """What a campaign left in a folder, or None. Raises DataError where it is damaged."""
    file = folder / "worth.json"
    return read_sealed(file) if file.is_file() else None
