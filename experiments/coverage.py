"""How often the intervals of `ambient_theory` hold the truth: samples of known laws, the table of docs/theory.md.

    python experiments/coverage.py            # measures what experiments/results/coverage.json lacks, writes the table
    python experiments/coverage.py --check    # says whether the table is the one of what was measured

A design draws samples from its law `draws` times, fits each and looks which intervals of 90 % hold the true atoms
(every coordinate), weights and, where it is estimated, noise. The standard error of a mean over those numbers is that
of the means of single draws. Draw i of a design has the seed [its seed, name of the design, i].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from marked_page import MarkedPage, measure_or_check
from numpy.typing import NDArray

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.inference import Uncertainty, matched
from ambient_theory.mixtures.laws import AtomicLaw, embed, hard_pair, scaled, separated_law
from ambient_theory.mixtures.noise_scale import noise_scale
from ambient_theory.shared.files import atomic_write_text, canonical_json, read_json

ROOT = Path(__file__).parents[1]
OUT, PAGE = ROOT / "experiments" / "results" / "coverage.json", ROOT / "docs" / "theory.md"
MARKED = MarkedPage(PAGE, "coverage.py")
SEED, AFRESH = 1105, 1130
"""The seed of a design, and of those that were measured anew with more draws."""
LEVEL = 0.9
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Design:
    """law in R^d, noise levels with shares of the samples; noise: `known`, a `factor` on it that is estimated, or one
    `unknown` for all. Intervals are the default ones of the method."""

    name: str
    law: AtomicLaw
    n: int
    draws: int
    method: Literal["auto", "dmm"] = "auto"
    levels: tuple[float, ...] = (1.0,)
    shares: tuple[float, ...] = (1.0,)
    noise: Literal["known", "factor", "unknown"] = "known"
    n_boot: int = 199
    seed: int = SEED

    def settings(self) -> dict[str, Any]:
        """What decides its numbers."""
        return {**asdict(self), "law": self.law.to_dict(), "level": LEVEL}


TWO: dict[str, Any] = {"levels": (1.0, 2.5), "shares": (0.1, 0.9)}
AGAIN: dict[str, Any] = {"seed": AFRESH}
UNKNOWN: dict[str, Any] = {"noise": "unknown", **AGAIN}
FEW: dict[str, Any] = {"n_boot": 99}
APART, CLOSE, SYMMETRIC = separated_law(2), hard_pair(2)[0], AtomicLaw([-2.0, 2.0])
DESIGNS: tuple[tuple[str, tuple[Design, ...]], ...] = (
    (
        "likelihood, on the line",
        (
            Design("separated, by likelihood", APART, 2000, 300),
            Design("hard pair of half-width 1, by likelihood", CLOSE, 2000, 400, **AGAIN),
            Design("two levels 10:90, by likelihood", APART, 2000, 300, **TWO),
            Design("three separated atoms, by likelihood", separated_law(3), 2000, 300),
        ),
    ),
    (
        "moments, bootstrap of 199",
        (
            Design("separated, by moments", APART, 1000, 600, "dmm"),
            Design("hard pair of half-width 1, by moments", CLOSE, 1000, 600, "dmm"),
            Design("two levels 10:90, by moments", APART, 1000, 600, "dmm", **TWO),
            Design("hard pair under two levels 10:90, by moments", CLOSE, 1000, 600, "dmm", **TWO),
        ),
    ),
    (
        "d dimensions, bootstrap of 99",
        (
            Design("atoms at -2 and 2 in d = 5", embed(SYMMETRIC, 5), 300, 100, **FEW, **AGAIN),
            Design("hard pair of half-width 1.5 in d = 5", embed(scaled(CLOSE, 1.5), 5), 300, 60, **FEW),
        ),
    ),
    (
        "noise estimated, too",
        (
            Design("hard pair of half-width 1 in d = 2, noise unknown", embed(CLOSE, 2), 500, 165, **FEW, **UNKNOWN),
            Design("separated on the line, noise unknown", APART, 300, 215, **UNKNOWN),
            Design("hard pair of half-width 2 on the line, noise unknown", scaled(CLOSE, 2), 500, 125, **UNKNOWN),
            Design(
                "two levels 10:90 on the line, a common factor unknown", APART, 500, 150, noise="factor", **TWO, **AGAIN
            ),
        ),
    ),
)


def drawn(design: Design, draw: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Samples (n, d) and their noise (n,)."""
    rng = np.random.default_rng([design.seed, *design.name.encode(), draw])
    s = rng.choice(design.levels, design.n, p=design.shares)
    return design.law.sample(s, rng), s


def held(design: Design, draw: int) -> Mask:
    """Which intervals hold the truth: all coordinates of the atoms, the weights (of two, one), the estimated noise."""
    x, s = drawn(design, draw)
    model = HeteroscedasticMixture(design.law.k, method=design.method, random_state=0)
    extra: list[bool] = []
    error, found = 0.0, None
    if design.noise != "known":
        stated = s if design.noise == "factor" else None
        scale = noise_scale(model, x, stated, level=LEVEL, intervals=design.law.d == 1)
        extra = [scale.low <= 1 <= scale.high]
        found, error = scale.uncertainty, scale.relative_error
        s = scale.scale * (s if stated is not None else np.ones(design.n))
    model.fit(x, noise_std=s)
    if found is None:
        found = model.intervals(x, noise_std=s, level=LEVEL, n_boot=design.n_boot, noise_error=error, random_state=draw)
    return np.append(inside(found, model, design.law), extra)


def inside(found: Uncertainty, model: HeteroscedasticMixture, law: AtomicLaw) -> Mask:
    """Atoms, coordinate by coordinate, and weights that lie in their intervals, in the order of the law."""
    _, order = matched(model.means_, np.arange(law.k), law.atoms)
    atoms = (found.means_low[order] <= law.atoms) & (law.atoms <= found.means_high[order])
    weights = (found.weights_low[order] <= law.weights) & (law.weights <= found.weights_high[order])
    return np.append(atoms, weights if law.k > 2 else weights[: law.k - 1])


def measured(design: Design) -> dict[str, Any]:
    """settings; coverage of each number; their mean and its standard error over draws."""
    rows = np.array([held(design, i) for i in range(design.draws)], dtype=float)
    means = rows.mean(axis=1)
    return {
        "settings": design.settings(),
        "coverage": rows.mean(axis=0).tolist(),
        "mean": float(means.mean()),
        "stderr": float(means.std(ddof=1) / np.sqrt(design.draws)),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The marked lines of docs/theory.md: every design that was measured, and what is missing."""
    by_name = {entry["settings"]["name"]: entry for entry in found}
    lines = ["| intervals | design | n | draws | mean ± s.e. | single numbers |", "|---|---|---|---|---|---|"]
    missing = []
    for kind, designs in DESIGNS:
        for design in designs:
            if (entry := by_name.get(design.name)) is None:
                missing.append(design.name)
                continue
            each = [100 * c for c in entry["coverage"]]
            share = f"{100 * entry['mean']:.1f} ± {100 * entry['stderr']:.1f}"
            cells = (kind, design.name.partition(", by ")[0], f"{design.n:,}", f"{design.draws}", share)
            lines.append(f"| {' | '.join(cells)} | {min(each):.0f} to {max(each):.0f} |")
    if missing:
        lines.append(f"\nNot measured yet: {'; '.join(missing)}.")
    return "\n".join(lines) + "\n"


def known() -> list[dict[str, Any]]:
    """What was measured with today's settings."""
    if not OUT.exists():
        return []
    asked = {canonical_json(design.settings()) for _, designs in DESIGNS for design in designs}
    return [entry for entry in read_json(OUT)["designs"] if canonical_json(entry["settings"]) in asked]


def run(tell: Callable[[str], None]) -> None:
    """Measure what is missing, design by design, and keep each."""
    found = known()
    done = {entry["settings"]["name"] for entry in found}
    for design in (design for _, designs in DESIGNS for design in designs if design.name not in done):
        entry = measured(design)
        found.append(entry)
        atomic_write_text(OUT, canonical_json({"schema": "ambient.coverage/1", "designs": found}) + "\n")
        tell(f"{design.name}: {100 * entry['mean']:.1f} +- {100 * entry['stderr']:.1f}")


if __name__ == "__main__":
    measure_or_check(__doc__ or "", MARKED, lambda: run(print), lambda: table(known()))
