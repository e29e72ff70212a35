"""The risk of the default method beside that of its alternatives: the table of docs/theory.md.

    python experiments/risk.py            # measures what experiments/results/risk.json lacks, writes the table
    python experiments/risk.py --check    # says whether the table is the one of what was measured

Every design draws samples of a law under one kind of noise `reps` times and fits the same samples by every method. The
risk is the mean W1. `lost` is what the default has more than 1.2 times the best of the others, over that one's risk,
with the standard error of its mean over draws. Where several alternatives are nearly as good, the best of their means
is below each of their risks: that asks the default for a little too much. Draw i of a design has the seed
[SEED, its name, i].
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from marked_page import MarkedPage, measure_or_check
from numpy.typing import NDArray

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.laws import AtomicLaw, separated_law
from ambient_theory.mixtures.w1 import w1
from ambient_theory.shared.files import atomic_write_text, canonical_json, read_json

ROOT = Path(__file__).parents[1]
OUT, PAGE = ROOT / "experiments" / "results" / "risk.json", ROOT / "docs" / "theory.md"
MARKED = MarkedPage(PAGE, "risk.py")
SEED = 1130
BAR = 1.2
Floats = NDArray[np.float64]

NOISES: dict[str, tuple[int, Callable[[int, np.random.Generator], Floats]]] = {
    "one level": (1000, lambda n, rng: np.full(n, 1.0)),
    "two levels 10:90": (1000, lambda n, rng: np.where(rng.random(n) < 0.1, 1.0, 2.0)),
    "log-normal, tau 0.5": (1000, lambda n, rng: 2 * np.exp(0.5 * rng.standard_normal(n))),
    "log-normal, tau 1": (1000, lambda n, rng: 2 * np.exp(rng.standard_normal(n))),
    "log-normal, tau 2": (1000, lambda n, rng: 2 * np.exp(2 * rng.standard_normal(n))),
    "one precise of 5,000": (5000, lambda n, rng: np.append(0.1, np.full(n - 1, 2.0))),
}
"""Samples, and their noise (n,)."""

LAWS: tuple[tuple[int, int], ...] = ((2, 1), (3, 1), (4, 1), (5, 1), (2, 20), (3, 20), (3, 100))
"""(k, d)."""


@dataclass(frozen=True)
class Design:
    """k atoms in R^d under a kind of noise: four units apart on the line, else in random directions at 4.5."""

    k: int
    d: int
    noise: str
    reps: int = 12

    @property
    def name(self) -> str:
        return f"k = {self.k}, d = {self.d}, {self.noise}"

    @property
    def law(self) -> AtomicLaw:
        if self.d == 1:
            return separated_law(self.k)
        atoms = np.random.default_rng(self.k).standard_normal((self.k, self.d))
        return AtomicLaw(4.5 * atoms / np.linalg.norm(atoms, axis=1, keepdims=True), separated_law(self.k).weights)

    @property
    def methods(self) -> tuple[str, ...]:
        return ("auto", "dmm", "mle", "em", *(("npmle",) if self.d == 1 else ()))

    def settings(self) -> dict[str, Any]:
        """What decides its numbers."""
        return {**asdict(self), "n": NOISES[self.noise][0], "law": self.law.to_dict(), "seed": SEED}


DESIGNS = tuple(Design(k, d, noise) for k, d in LAWS for noise in NOISES)


def errors(design: Design, draw: int) -> list[float]:
    """W1 of each method on the same samples."""
    rng = np.random.default_rng([SEED, *design.name.encode(), draw])
    n, noise = NOISES[design.noise]
    s = noise(n, rng)
    x = design.law.sample(s, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # four atoms and more, and EM that stops at 200 steps
        models = [
            HeteroscedasticMixture(design.k, method=method, max_iter=200, random_state=0).fit(x, noise_std=s)
            for method in design.methods
        ]
    return [w1(model.law_, design.law) for model in models]


def measured(design: Design) -> dict[str, Any]:
    """settings; the risk of each method; the best of the others, the default's ratio to it with its standard error,
    and what it loses against the bar."""
    rows = np.array([errors(design, i) for i in range(design.reps)])
    risk = dict(zip(design.methods, rows.mean(axis=0).tolist(), strict=True))
    best = min(design.methods[1:], key=risk.__getitem__)
    default, other = rows[:, 0], rows[:, design.methods.index(best)]

    def stderr(times: float) -> float:
        return float((default - times * other).std(ddof=1) / np.sqrt(design.reps) / risk[best])

    ratio = risk["auto"] / risk[best]
    lost = {"lost": ratio - BAR, "lost_stderr": stderr(BAR)}
    return {"settings": design.settings(), "risk": risk, "best": best, "ratio": ratio, "stderr": stderr(ratio), **lost}


def table(found: Sequence[dict[str, Any]]) -> str:
    """The marked lines of docs/theory.md: the ratio of each design, a row a law, and what is missing."""
    by_name = {canonical_json(entry["settings"]): entry for entry in found}
    lines = [f"| | {' | '.join(NOISES)} |", "|---|" + "---|" * len(NOISES)]
    missing = []
    for k, d in LAWS:
        cells = []
        for design in (one for one in DESIGNS if (one.k, one.d) == (k, d)):
            if (entry := by_name.get(canonical_json(design.settings()))) is None:
                missing.append(design.name)
                cells.append("")
                continue
            cells.append(f"{entry['ratio']:.2f} ± {entry['stderr']:.2f} {entry['best']}")
        lines.append(f"| k = {k}, d = {d} | {' | '.join(cells)} |")
    above = [entry for entry in found if entry["lost"] > 0]
    surely = [entry for entry in above if entry["lost"] > 2 * entry["lost_stderr"]]
    lines.append(f"\nAbove {BAR} times: {len(above)} of {len(found)}, by two standard errors or more {len(surely)}.")
    if missing:
        lines.append(f"\nNot measured yet: {'; '.join(missing)}.")
    return "\n".join(lines) + "\n"


def known() -> list[dict[str, Any]]:
    """What was measured with today's settings."""
    if not OUT.exists():
        return []
    asked = {canonical_json(design.settings()) for design in DESIGNS}
    return [entry for entry in read_json(OUT)["designs"] if canonical_json(entry["settings"]) in asked]


def run(tell: Callable[[str], None]) -> None:
    """Measure what is missing, design by design, and keep each."""
    found = known()
    done = {canonical_json(entry["settings"]) for entry in found}
    for design in (design for design in DESIGNS if canonical_json(design.settings()) not in done):
        entry = measured(design)
        found.append(entry)
        atomic_write_text(OUT, canonical_json({"schema": "ambient.risk/1", "designs": found}) + "\n")
        tell(f"{design.name}: {entry['ratio']:.2f} +- {entry['stderr']:.2f} of {entry['best']}")


if __name__ == "__main__":
    measure_or_check(__doc__ or "", MARKED, lambda: run(print), lambda: table(known()))
