"""The tables of docs/methods.md on few or no clean images, from the records of experiments/noisy_only.toml and
distill_rate.toml."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ambient_theory.shared.records import NATS, Record
from ambient_theory.shared.replicates import replicates

GOAL = "clean 1000"
"""The cell whose score is the goal of all others."""
HEAD = """
## Few or no clean images

1,000 images of 8x8 Fashion-MNIST, all noisy or a tenth of them clean; fixed beforehand in experiments/noisy_only.toml.
*Full* samples go down to level 0, *truncated* ones end at the noise of the data with the posterior mean. *Gap closed*:
of the difference in FD between truncated sampling and training on as many clean images, paired by seed. The distilled
generator makes an image in one evaluation, *full* sampling in 23, *truncated* in 19 (σ .2) or 15 (σ .6); its training
comes on top of its teacher's (*full*), and it is no denoiser, so it has no nats.
"""

COLUMNS = "| method | seeds | FD | times that of clean | gap closed | nats |"


RATES = """
### At which rate does a small network distill?

FD of the distilled generator; noisy-only, sigma .2, one seed. A pilot, not a test: rates were added as scores came in
(experiments/distill_rate.toml).

"""


def rate_table(records: Sequence[Record]) -> list[str]:
    """FD of every cell by duration, from one seed."""
    scored = {
        (str(r.cell), r.duration_nimg or 0): r.value
        for r in records
        if (r.metric, r.reference, r.checkpoint) == ("fd", "heldout-clean", "last")
    }
    durations = sorted({nimg for _, nimg in scored})
    lines = [
        "| training | " + " | ".join(f"{n:,} images" for n in durations) + " |",
        "|---" * (len(durations) + 1) + "|",
    ]
    for cell in _cells(records):
        row = (f"{scored[cell, n]:.2f}" if (cell, n) in scored else "" for n in durations)
        lines.append("| " + " | ".join([cell, *row]) + " |")
    return lines


GAP = """
### Where the gap lies

Two of these networks spliced at the noise of the data ({images:,} images, sigma {sigma:g}, {seeds}): the levels above
it by one, those from it down by the other (experiments/noisy_gap.py; not fixed beforehand: seed 730 was seen first,
with half as many images). *Gap closed* as above.

"""


def gap_table(found: Mapping[str, Any]) -> str:
    """FD of every splice by seed paired, and the share of the gap closed, with its heading."""
    by: dict[tuple[str, str, float], dict[int, float]] = defaultdict(dict)
    for r in found["rows"]:
        by[r["above"], r["below"], r["end"]][r["seed"]] = r["fd"]
    truncated, goal = by["noisy", "noisy", found["sigma"]], by["clean", "clean", 0.0]
    lines = [
        "| above the noise | from the noise down | sampling ends | FD | gap closed |",
        "|---|---|---|---|---|",
    ]
    trained_on = {"noisy": "noisy images", "clean": "clean images"}
    for (above, below, end), own in by.items():
        gap = "" if own is truncated else _percent(closed([(own[s], truncated[s], goal[s]) for s in own]))
        where = f"{end:g}, posterior mean" if end else "0"
        lines.append(f"| {trained_on[above]} | {trained_on[below]} | {where} | {_scored(list(own.values()))} | {gap} |")
    return GAP.format(images=found["images"], sigma=found["sigma"], seeds=_seeds(goal)) + "\n".join(lines) + "\n"


def tables(records: Sequence[Record]) -> list[str]:
    """A table for each kind of data: FD, FD over that of clean data, the share of the gap closed, nats; by seed paired.

    The gap is that between truncated sampling T and as many clean images C: (T - x)/(T - C), both means over the seeds
    that all three have, its standard error by the jackknife over seeds.
    """
    fd, nats = ({cell: _by_seed(records, cell, m) for cell in _cells(records)} for m in ("fd", NATS))
    goal = fd.get(GOAL, {})
    data: dict[str, list[str]] = defaultdict(list)
    for cell in fd:
        if ": " in cell:
            data[cell.split(": ")[0]].append(cell)
    lines = ["", "The rows that have run:", ""]
    lines += [
        f"{cell} images: FD {_scored(list(own.values()))}, nats {_scored(list(nats[cell].values()))}, {_seeds(own)}."
        for cell, own in fd.items()
        if ": " not in cell
    ]
    for kind, cells in data.items():
        truncated = fd.get(f"{kind}: truncated", {})
        lines += ["", f"{kind}:", "", COLUMNS, "|" + "---|" * (COLUMNS.count("|") - 1)]
        for cell in cells:
            own = fd[cell]
            both = sorted(own.keys() & goal.keys())
            ratio = [own[s] / goal[s] for s in both]
            three = [(own[s], truncated[s], goal[s]) for s in both if s in truncated]
            gap = "" if cell == f"{kind}: truncated" else _percent(closed(three)) if three else "–"
            row = [cell.split(": ")[1], str(len(own)), _scored(list(own.values())), _scored(ratio), gap]
            lines.append("| " + " | ".join([*row, _scored(list(nats[cell].values()))]) + " |")
        least = (f"least {what} {_least(scores, cells)}" for what, scores in (("FD", fd), ("nats", nats)))
        lines += ["", f"{kind}: {', '.join(least)}."]
    return lines


def _least(scores: Mapping[str, Mapping[int, float]], cells: Iterable[str]) -> str:
    """Names of the methods whose mean over seeds is the least."""
    means = {cell.split(": ")[1]: replicates(scores[cell].values()).mean for cell in cells if scores[cell]}
    return " and ".join(name for name, mean in means.items() if mean == min(means.values()))


def _cells(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(str(r.cell) for r in records))


def _by_seed(records: Iterable[Record], cell: str, metric: str) -> dict[int, float]:
    """The last checkpoint's score on held-out images by seed."""
    return {
        r.seed: r.value
        for r in records
        if (r.cell, r.metric, r.checkpoint, r.reference) == (cell, metric, "last", "heldout-clean")
        and r.seed is not None
    }


def _seeds(values: Mapping[int, float]) -> str:
    return f"{len(values)} seed{'' if len(values) == 1 else 's'}"


def _scored(values: Sequence[float]) -> str:
    """Mean and standard error, a dash where nothing was scored."""
    if not values:
        return "–"
    found = replicates(values)
    return with_error(found.mean, found.stderr)


def with_error(mean: float, stderr: float | None) -> str:
    """`12.3 ± 0.4`; the mean alone without a standard error."""
    digits = 1 if mean > 20 else 2
    return f"{mean:.{digits}f}" + ("" if stderr is None else f" ± {stderr:.{digits}f}")


def closed(triples: Sequence[tuple[float, float, float]]) -> tuple[float, float | None]:
    """Share of the gap closed by scores (own, truncated, clean) of each seed, and its standard error by the jackknife,
    None from one seed."""
    x = np.asarray(triples)

    def share(rows: np.ndarray) -> float:
        own, truncated, clean = rows.mean(0)
        return float((truncated - own) / (truncated - clean))

    if len(x) == 1:
        return share(x), None
    left_out = np.array([share(np.delete(x, k, 0)) for k in range(len(x))])
    return share(x), math.sqrt((len(x) - 1) / len(x) * float(np.sum((left_out - left_out.mean()) ** 2)))


def _percent(found: tuple[float, float | None]) -> str:
    share, stderr = found
    return f"{100 * share:.0f}" + ("" if stderr is None else f" ± {100 * stderr:.0f}") + " %"
